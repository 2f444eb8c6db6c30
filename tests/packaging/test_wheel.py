"""What is built works where nothing but its declared dependencies is installed.

The distribution is built as for a release, installed into an empty environment outside of the
checkout, and runs the README's example there, through Airflow.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder, ROOT])
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The ``bin`` folder of an empty environment into which the wheel was installed."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, venv])
    pins = ["--constraints", ROOT / "constraints.txt"]
    install = [BIN / "uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python"]
    run([*install, *pins, wheel])
    return venv / "bin"


def test_the_package_index_can_show_it(built):
    files = sorted(built.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    run([sys.executable, "-m", "twine", "check", "--strict", *files])


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel):
    package = "airflow_provider_rayworkflow"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", package]
    files = set(run(command, cwd=ROOT).splitlines())
    packed = zipfile.ZipFile(wheel).namelist()
    assert f"{package}/py.typed" in packed
    assert {name for name in packed if ".dist-info/" not in name} == files


def test_what_is_installed_fits_together(environment):
    run([BIN / "uv", "pip", "check", "--python", environment / "python"])


def test_every_module_can_be_imported(environment, tmp_path):
    # What is served over HTTP needs the extra `serve`.
    script = """
import importlib, pkgutil
import airflow_provider_rayworkflow as package
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not module.name.endswith(("http_event_provider", "runtime.http_events")):
        importlib.import_module(module.name)
print(package.__file__)
"""
    place = run([environment / "python", "-c", script], cwd=tmp_path, home=tmp_path)
    assert Path(place.splitlines()[-1]).is_relative_to(environment.parent)


@pytest.mark.airflow
@pytest.mark.ray
def test_the_readmes_example_runs_in_airflow(environment, tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "example_dags" / "ray_squares.py", dags)
    airflow = environment / "airflow"
    run([airflow, "db", "migrate"], cwd=tmp_path, home=tmp_path)
    run([airflow, "dags", "test", "ray_squares"], cwd=tmp_path, home=tmp_path)
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        values = database.execute("select value from xcom where key = 'return_value'").fetchall()
    assert values == [(285,)]
    shown = run(
        [environment / "rayworkflow", "list", "--storage", tmp_path / "workflows", "--json"],
        cwd=tmp_path,
        home=tmp_path,
    )
    assert [found["status"] for found in json.loads(shown)] == ["SUCCESSFUL"]


def run(command: list[str | Path], cwd: Path | None = None, home: Path | None = None) -> str:
    """What a command prints; its whole output if it fails. Airflow finds nothing but ``home``."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")
    }
    if home is not None:
        connection = {
            "conn_type": "ray_workflow",
            "extra": {"storage": str(home / "workflows"), "num_cpus": 1},
        }
        environment |= {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": json.dumps(connection),
        }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
