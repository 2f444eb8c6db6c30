"""``rayworkflow list`` with filters and pages, and ``rayworkflow reindex``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sample_records import status_record

from airflow_provider_rayworkflow.workflow.cli import main
from airflow_provider_rayworkflow.workflow.cli.text import table_lines
from airflow_provider_rayworkflow.workflow.cli.usage import point_in_time
from airflow_provider_rayworkflow.workflow.model.records import ORIGIN_KEY
from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import WorkflowStore
from airflow_provider_rayworkflow.workflow.storage.backends.local import LocalStore
from airflow_provider_rayworkflow.workflow.storage.overview import Overview

DAY_S = 86_400.0
#: Noon of a day, in this machine's zone.
NOON = datetime(2026, 7, 1, 12).timestamp()


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = WorkflowStore(LocalStore(path))

    def add(
        self, workflow_id: str, *, at: float, status: str = "SUCCESSFUL", dag: str = ""
    ) -> None:
        record = status_record(
            WorkflowStatus(status),
            workflow_id,
            created_at=at,
            started_at=at + 1,
            ended_at=at + 2,
            user_metadata={ORIGIN_KEY: {"dag_id": dag}} if dag else {},
        )
        self.store.write_status(record)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    path = tmp_path / "storage"
    monkeypatch.setenv("RAY_WORKFLOW_STORAGE", str(path))
    return Root(path)


@pytest.fixture(params=["with an index", "without an index"])
def filled(
    root: Root, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[[], Root]:
    """Both ways have to find the same, once all is stored."""

    def fill() -> Root:
        if request.param == "with an index":
            assert main(["reindex"]) == 0
            capsys.readouterr()
        return root

    return fill


def add_week(root: Root) -> None:
    """One workflow a day, ``day 1`` to ``day 7``; of two DAGs in turn."""
    for day in range(1, 8):
        root.add(
            f"day {day}",
            at=NOON + (day - 1) * DAY_S,
            status="FAILED" if day == 3 else "SUCCESSFUL",
            dag="even" if day % 2 == 0 else "odd",
        )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The days that a list shows, in text and in JSON."""
    shown = [line.split()[1] for line in printed(capsys, "list", *arguments).splitlines()[1:]]
    rows = json.loads(printed(capsys, "list", *arguments, "--json"))
    assert [row["workflow_id"].split()[1] for row in rows] == shown
    return shown


@pytest.mark.parametrize(
    ("arguments", "days"),
    [
        (["--dag", "even"], "642"),
        (["--dag", "odd", "--status", "FAILED"], "3"),
        (["--since", "2026-07-06"], "76"),
        (["--until", "2026-07-03T00:00"], "21"),
        (["--since", "2026-07-02T12:00:00", "--until", "2026-07-04T12:00"], "32"),
    ],
)
def test_a_filter_shows_what_it_selects_the_newest_first(
    filled: Callable[[], Root],
    root: Root,
    arguments: list[str],
    days: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_week(root)
    filled()
    assert found(capsys, *arguments) == list(days)


def test_a_part_of_the_id_is_found_in_any_case(
    filled: Callable[[], Root], root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    add_week(root)
    filled()
    assert found(capsys, "--id", "AY 5") == ["5"]


def test_with_an_index_the_whole_list_has_the_newest_first(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    add_week(root)
    assert main(["reindex"]) == 0
    capsys.readouterr()
    assert found(capsys) == list("7654321")


def test_a_list_of_a_filter_that_selects_nothing_says_so(
    filled: Callable[[], Root], root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    add_week(root)
    filled()
    assert printed(capsys, "list", "--dag", "x") == f"No workflows of this filter in {root.path}.\n"
    assert json.loads(printed(capsys, "list", "--dag", "x", "--json")) == []
    page = printed(capsys, "list", "--dag", "x", "--limit", "3")
    assert page == f"No workflows of this filter in {root.path}.\n"


def test_ages_count_from_now(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("day 0", at=time.time() - 3600)
    root.add("day 1", at=time.time() - 30 * 3600)
    root.add("day 2", at=time.time() - 3 * DAY_S)
    assert found(capsys, "--since", "2d") == ["0", "1"]
    assert found(capsys, "--since", "2d", "--until", "24h") == ["1"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("36h", 1_000_000 - 36 * 3600),
        ("1970-01-02T00:00:00Z", DAY_S),
        ("1970-01-02T02:00+02:00", DAY_S),
        ("2026-07-01T12:00", NOON),
        ("2026-07-01", NOON - DAY_S / 2),
    ],
)
def test_a_time_is_a_date_of_a_zone_or_an_age(text: str, seconds: float) -> None:
    assert point_in_time(text, now=1_000_000.0) == seconds


@pytest.mark.parametrize("text", ["", "d", "yesterday", "2026-13-01", "-2d", "0001-01-01"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time: give 2026-07-01"):
        point_in_time(text)


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "ten"], ["--since", "now"]])
def test_an_option_that_can_not_be_used_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["list", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}: {arguments[1]!r} is no" in capsys.readouterr().err


def test_a_page_names_the_next_one_until_all_are_shown(
    filled: Callable[[], Root], root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    add_week(root)
    filled()
    days, arguments = "", ["list", "--limit", "3"]
    for _ in range(2):
        *rows, last = printed(capsys, *arguments).splitlines()[1:]
        days += "".join(row.split()[1] for row in rows)
        before, _, cursor = last.partition(" --page ")
        assert before == "The next page:"
        arguments = ["list", "--limit", "3", "--page", cursor]
    days += "".join(row.split()[1] for row in printed(capsys, *arguments).splitlines()[1:])
    assert days == "7654321"


def test_a_page_as_json_has_the_cursor_of_the_next_one(
    filled: Callable[[], Root], root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("early", at=1000.0, dag="flights")
    root.add("late", at=2000.0)
    filled()
    page = json.loads(printed(capsys, "list", "--limit", "1", "--json"))
    assert [row["workflow_id"] for row in page["workflows"]] == ["late"]
    assert page["is_cut"] is False
    cursor = page["next_page"]
    assert json.loads(printed(capsys, "list", "--limit", "1", "--page", cursor, "--json")) == {
        "workflows": [
            {
                "workflow_id": "early",
                "status": "SUCCESSFUL",
                "epoch": 1,
                "created_at": 1000.0,
                "started_at": 1001.0,
                "ended_at": 1002.0,
                "dag_id": "flights",
            }
        ],
        "next_page": None,
        "is_cut": False,
    }


def test_a_page_without_a_limit_has_a_hundred(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(103):
        root.add(f"w{number:03}", at=float(number))
    assert main(["reindex"]) == 0
    capsys.readouterr()
    cursor = json.loads(printed(capsys, "list", "--limit", "1", "--json"))["next_page"]
    page = json.loads(printed(capsys, "list", "--page", cursor, "--json"))
    assert [row["workflow_id"] for row in page["workflows"]][::99] == ["w101", "w002"]
    assert page["next_page"] is not None


def test_a_cursor_that_is_none_is_refused(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.add("w", at=1.0)
    assert main(["list", "--page", "x"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "begin with the first page" in said.err


def test_a_cursor_of_another_filter_or_storage_is_refused(
    root: Root, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number in range(3):
        root.add(f"w{number}", at=float(number))
    cursor = json.loads(printed(capsys, "list", "--limit", "1", "--json"))["next_page"]
    Root(tmp_path / "other").add("w0", at=1.0)
    for other in (["--status", "FAILED"], ["--storage", str(tmp_path / "other")]):
        assert main(["list", "--limit", "1", "--page", cursor, *other]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert "it is of another storage, filter or order" in said.err


def test_a_page_whose_ids_begin_with_the_text_says_that_others_may_come(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.add("day 1", at=1.0)
    root.add("one day", at=2.0)
    said = printed(capsys, "list", "--limit", "5", "--id", "day").splitlines()
    assert said[1].startswith("day 1 ")
    assert said[2] == "Not all workflows were looked at: there may be more."
    cursor = said[3].removeprefix("The next page: --page ")
    more = printed(capsys, "list", "--limit", "5", "--id", "day", "--page", cursor)
    assert more.splitlines()[1].startswith("one day ")


def test_columns_of_a_long_list_become_wider_as_rows_come() -> None:
    rows = [("a", number) for number in range(1000)] + [("wide", 1000)]
    lines = list(table_lines(("ID", "N"), rows))
    assert (lines[0], lines[1000], lines[1001]) == ("ID  N", "a   999", "wide  1000")


# ---- reindex


def test_reindex_says_how_many_workflows_the_index_has(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    add_week(root)
    assert printed(capsys, "reindex") == "The index has 7 workflows.\n"
    assert json.loads(printed(capsys, "reindex", "--json")) == {"workflows": 7}
    assert Overview(root.store).load()


def test_reindex_repairs_a_damaged_index(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    add_week(root)
    assert main(["reindex"]) == 0
    for node in (root.path / "v1/index").rglob("*.node"):
        node.write_bytes(b"damaged")
    capsys.readouterr()
    assert printed(capsys, "reindex") == "The index has 7 workflows.\n"
    index = WorkflowStore(LocalStore(root.path)).index.load()
    assert index is not None
    assert len(list(index.scan(low="i/", high="i0"))) == 7


def test_reindex_of_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reindex", "--storage", str(tmp_path / "no")]) == 1
    assert "There is no folder" in capsys.readouterr().err
