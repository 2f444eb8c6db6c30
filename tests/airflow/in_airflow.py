"""Asked of Airflow in a process of its own; prints JSON. The first argument says what is asked."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_rayworkflow"
AIRFLOW_FACING = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if PACKAGE / "workflow" not in path.parents
]


def imports() -> dict:
    """What importing the Airflow side and parsing the example DAGs loads."""
    import importlib

    for module in AIRFLOW_FACING:
        importlib.import_module(module)
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "example_dags"))
    heavy = {"ray", "pyarrow", "pandas"}
    return {
        "modules": AIRFLOW_FACING,
        "dags": sorted(bag.dags),
        "import_errors": bag.import_errors,
        "heavy": sorted(heavy & set(sys.modules)),
    }


def parsed() -> list[str]:
    """Our modules that are loaded for DAG files which run workflows and wait for them."""
    import importlib

    sys.path.insert(0, str(ROOT / "example_dags"))
    for example in ("ray_squares", "ray_deferrable", "ray_taskflow", "ray_sensor"):
        importlib.import_module(example)
    return sorted(name for name in sys.modules if name.startswith("airflow_provider_rayworkflow"))


def provider() -> dict:
    """What Airflow has found of this provider."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    info = manager.providers["airflow-provider-rayworkflow"]
    hook = manager.hooks["ray_workflow"]
    forms = [
        form for form in HookMetaService.hook_meta_data() if form.connection_type == "ray_workflow"
    ]
    return {
        "version": info.version,
        "name": info.data["name"],
        "hook": [hook.hook_class_name, hook.connection_id_attribute_name, hook.hook_name],
        "forms": [json.loads(form.model_dump_json()) for form in forms],
    }


if __name__ == "__main__":
    print(json.dumps({"imports": imports, "parsed": parsed, "provider": provider}[sys.argv[1]]()))
