"""The distribution as for a release, installed into an empty environment outside of the checkout."""

import sys
from pathlib import Path

import pytest
from commands import ROOT, install, run


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder, ROOT])
    return folder


@pytest.fixture(scope="session")
def wheel(built) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory) -> Path:
    """The ``bin`` folder of an empty environment into which the wheel was installed."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    install(wheel, venv)
    return venv / "bin"
