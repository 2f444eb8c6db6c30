"""The Grafana dashboard and the page name figures that exist, and all of them."""

import json
import re
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.runtime import metrics

DOCS = Path(__file__).parents[2] / "docs"

_SUFFIXES = ("_bucket", "_count", "_sum", "_total")


@pytest.fixture(scope="module")
def figures() -> set[str]:
    """What the runtime makes, as Prometheus sees it, without suffixes."""
    source = Path(metrics.__file__).read_text()
    return {f"ray_{name}" for name in re.findall(r'"(workflow_\w+)"', source)}


def names(text: str) -> set[str]:
    found = set()
    for name in re.findall(r"ray_workflow_\w+", text):
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        found.add(name)
    return found


def test_the_dashboard_shows_every_figure(figures):
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    shown = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            shown |= names(target["expr"])
    assert shown == figures


def test_panels_do_not_overlap():
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) == 10


def test_the_page_explains_every_figure(figures):
    page = (DOCS / "observability.md").read_text()
    assert names(page) == figures
