"""What Ray may change without notice is named in one file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import airflow_provider_rayworkflow

PACKAGE = Path(airflow_provider_rayworkflow.__file__).parent
HOME = PACKAGE / "workflow" / "runtime" / "private_ray.py"


def private_imports(file: Path) -> Iterator[str]:
    """Names below ``ray`` with a part that begins with an underscore."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            is_dotted = all(part.isidentifier() for part in rest)
            if first == "ray" and is_dotted and any(part.startswith("_") for part in rest):
                yield name


def test_only_one_module_imports_private_parts_of_ray():
    users = {file for file in PACKAGE.rglob("*.py") if any(private_imports(file))}
    assert users == {HOME}
