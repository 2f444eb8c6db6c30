"""What is built works where nothing but its declared dependencies is installed.

The distribution is built as for a release and installed into an empty environment outside of the
checkout; ``test_tutorial`` runs a workflow in such a one.
"""

import sys
import zipfile
from pathlib import Path

import pytest
from commands import BIN, ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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


def test_the_installed_packages_fit_together(environment):
    run([BIN / "uv", "pip", "check", "--python", environment / "python"])


def test_every_module_can_be_imported(environment, tmp_path):
    # What is served over HTTP needs the extra `serve`.
    script = """
import importlib, pkgutil
import airflow_provider_rayworkflow as package
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not module.name.endswith(("http_event_provider", "service.http_events")):
        importlib.import_module(module.name)
print(package.__file__)
"""
    place = run([environment / "python", "-c", script], cwd=tmp_path, home=tmp_path)
    assert Path(place.splitlines()[-1]).is_relative_to(environment.parent)
