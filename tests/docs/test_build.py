"""The pages build without a warning, and the reference has what the package offers."""

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_rayworkflow import workflow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """The built pages."""
    html = tmp_path_factory.mktemp("html")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(html)]
    built = subprocess.run(
        [sys.executable, *command, "-d", str(tmp_path_factory.mktemp("doctrees"))],
        cwd=ROOT,
        timeout=240,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return html


def test_every_public_name_of_the_runtime_is_in_the_reference(pages):
    page = (pages / "reference" / "workflow.html").read_text()
    statuses = {"RUNNING", "PENDING", "SUCCESSFUL", "FAILED", "RESUMABLE", "CANCELED", "NONE"}
    modules = {"common", "exceptions"}
    missing = [
        name
        for name in set(workflow.__all__) - statuses - modules
        if f'id="airflow_provider_rayworkflow.workflow.{name}"' not in page
        and f'id="airflow_provider_rayworkflow.workflow.exceptions.{name}"' not in page
    ]
    assert missing == []


def test_fields_of_docstrings_are_rendered(pages):
    page = (pages / "reference" / "workflow.html").read_text()
    assert ":param" not in page
    assert ":raises" not in page
    assert "<strong>max_running_workflows</strong>" in page
