"""The log of the demo's task as a person sees it in Airflow's UI: its only errors are those of its failure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Window, open_browser
from dag_test import connection
from live_airflow import LiveAirflow
from playwright.sync_api import expect

EXAMPLES = Path(__file__).parents[3] / "example_dags"
TASK = ("flights_daily", "r", "flights")

#: What Airflow and the operator say of the workflow task that fails once, as the demo asks for.
OF_THE_FAILURE = ("task fit_delay_model failed", "Task failed with exception")

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.live,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
]


@pytest.fixture(scope="module")
def live(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    """A deployment in which the demo's DAG has run: its first try failed, its second one resumed."""
    folder = tmp_path_factory.mktemp("demo")
    airflow = LiveAirflow(
        tmp_path_factory.mktemp("live"),
        {
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW_CONN_RAY_WORKFLOW_DEFAULT": connection(
                storage=str(folder / "workflows"), num_cpus=2
            ),
        },
    )
    with airflow.started(airflow_home / "airflow.db"):
        airflow.unpause(TASK[0])
        airflow.trigger(
            *TASK[:2],
            day="2013-06-02",
            output_dir=str(folder / "output"),
            fail_once=str(folder / "failed_once"),
            run_log=str(folder / "runs.jsonl"),
        )
        assert airflow.wait_for_end(*TASK, try_number=2) == "success"
        yield airflow


def test_the_written_log_has_no_error_but_the_failure_and_no_colours(live: LiveAirflow):
    first, second = (live.log(*TASK, try_number=number) for number in (1, 2))
    errors = [line for line in (first + second).splitlines() if is_error(line)]
    assert len(errors) >= 2
    assert [line for line in errors if not is_of_the_failure(line)] == []
    assert [line for line in second.splitlines() if is_error(line)] == []
    assert "\\u001b" not in first + second


def test_what_the_page_shows_as_an_error_is_the_failure(live: LiveAirflow):
    with open_browser() as browser, browser.new_context(locale="en-GB") as context:
        page = Window(context, live).open(
            "dags/{}/runs/{}/tasks/{}?try_number=1&log_level=error&log_level=critical".format(*TASK)
        )
        lines = page.locator('[data-testid^="virtualized-item-"]')
        expect(lines.filter(has_text="task fit_delay_model failed")).to_have_count(1)
        shown = lines.all_inner_texts()
    errors = [text for text in shown if re.search(r"\b(ERROR|CRITICAL)\b", text)]
    assert len(errors) >= 2, shown
    assert [text for text in errors if not is_of_the_failure(text)] == []


def is_error(line: str) -> bool:
    return '"level":"error"' in line or '"level":"critical"' in line


def is_of_the_failure(text: str) -> bool:
    return any(said in text for said in OF_THE_FAILURE)
