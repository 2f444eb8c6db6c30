"""Names of objects: one for each id, and back."""

import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.status import WorkflowStatus
from airflow_provider_rayworkflow.workflow.storage import keys

# Everything that may be in an id, and what is delicate in names more often.
TEXT = st.text(
    st.one_of(
        st.sampled_from("aA~%._-/\\:é2e4fF"),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=300,
)


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("daily-2013.01_01+x=1,@", "daily-2013.01_01+x=1,@"),
        ("Daily", "%44aily"),
        ("a/b", "a%2fb"),
        ("a%2fb", "a%252fb"),
        ("~", "%7e"),
        (".hidden", "%2ehidden"),
        ("%2ehidden", "%252ehidden"),
        ("é", "%c3%a9"),
        ("e\u0301", "e%cc%81"),
        ("C:\\con", "%43%3a%5ccon"),
        ("東京", "%e6%9d%b1%e4%ba%ac"),
    ],
)
def test_an_id_is_quoted_so_that_every_file_system_can_have_it(text: str, segment: str):
    assert keys.quote_id(text) == segment
    assert keys.unquote_id(segment) == text


@given(TEXT, TEXT)
@example("a", "A")
@example("a" * 255, "A" * 255)
@example("A" * 255, "A" * 254 + "B")
@example(".a", "%2ea")
def test_ids_that_differ_give_names_that_differ_also_where_case_does_not_count(
    one: str, other: str
):
    assume(one != other)
    assert keys.quote_id(one).lower() != keys.quote_id(other).lower()


@given(TEXT)
def test_a_name_is_plain_and_short_and_gives_its_id_back_unless_it_was_long(text: str):
    segment = keys.quote_id(text)
    assert set(segment) <= set(string.ascii_lowercase + string.digits + "_-.+=,@%~")
    assert len(segment) <= 200
    assert not segment.startswith(".")
    assert keys.unquote_id(segment) in (text, None)
    if len(text) <= 16:
        assert keys.unquote_id(segment) == text


def test_a_long_id_ends_in_its_hash():
    segment = keys.quote_id("X" * 100)
    digest = "b90aa07301e80d19137e9f69c5ac83658762a97befea846005c0fb2507d6ce64"
    assert segment == "%58" * 33 + "%~" + digest
    assert keys.unquote_id(segment) is None


def test_the_keys_of_a_workflow():
    assert keys.epoch_key("W", 3) == "v1/workflows/%57/00000003.epoch"
    assert keys.journal_key("w", 3, 12) == "v1/workflows/w/00000003-00000012.journal"
    assert keys.value_key("w", 3, "t", 2, 99) == (
        "v1/workflows/w/00000003-e3b98a4da31a127d4bde6e43033f66ba-2-99.value"
    )
    assert keys.lease_key("m") == "v1/leases/m.json"


def test_a_task_id_may_have_any_characters():
    hashes = {keys.task_hash(task_id) for task_id in ("t", "T", "", "\ud800", "x" * 1_000)}
    assert {len(digest) for digest in hashes} == {32}
    assert len(hashes) == 5


@given(
    TEXT,
    st.integers(1, 10**8),
    st.integers(0, 10**5),
    st.sampled_from(WorkflowStatus),
    st.sampled_from(["m", "a-b", "8f14e45fceea167a5a36dedd4bea2543"]),
)
def test_the_name_of_a_status_document_says_what_it_is(
    workflow_id: str, epoch: int, number: int, status: WorkflowStatus, manager_id: str
):
    made = keys.status_key(
        workflow_id, epoch=epoch, number=number, status=status, manager_id=manager_id
    )
    assert keys.parse_status_key(made.key) == made
    assert made.key.startswith(keys.status_folder(workflow_id) + "/")


def test_the_latest_status_is_that_of_the_latest_epoch_then_of_the_highest_number():
    def key(epoch: int, number: int, status: str) -> keys.StatusKey:
        return keys.status_key(
            "w", epoch=epoch, number=number, status=WorkflowStatus(status), manager_id="m"
        )

    ordered = [
        key(1, 0, "RUNNING"),
        key(1, 1, "FAILED"),
        key(2, 0, "PENDING"),
        key(2, 9, "RUNNING"),
        key(2, 10, "RUNNING"),
        key(10, 0, "RUNNING"),
    ]
    assert sorted(reversed(ordered)) == ordered


@pytest.mark.parametrize(
    "name",
    [
        "00000001-0000-RUNNING-m.json.bak",
        "00000001-0000-RUNNING-m",
        "00000001-0000-RUNNING.json",
        "00000001-0000-running-m.json",
        "00000001-0000-HAPPY-m.json",
        "x-0000-RUNNING-m.json",
        "²-0000-RUNNING-m.json",
        "00000001-²-RUNNING-m.json",
        "desktop.ini",
        "lost+found",
        "Icon\r",
        "",
    ],
)
def test_a_foreign_file_is_no_status(name: str):
    assert keys.parse_status_key(f"v1/status/w/{name}") is None


def test_a_status_document_in_another_folder_is_no_status():
    assert keys.parse_status_key("v2/status/w/00000001-0000-RUNNING-m.json") is None
    assert keys.parse_status_key("v1/status/00000001-0000-RUNNING-m.json") is None
    assert keys.parse_status_key("00000001-0000-RUNNING-m.json") is None


def test_the_names_in_a_workflows_folder_say_what_they_are():
    epoch = keys.parse_workflow_file(keys.epoch_key("w", 3), 10)
    journal = keys.parse_workflow_file(keys.journal_key("w", 3, 12), 20)
    value = keys.parse_workflow_file(keys.value_key("w", 3, "t", 2, 99), 30)
    cancel = keys.parse_workflow_file(keys.cancel_key("w", "try 1"), 0)
    assert epoch is not None
    assert cancel is not None
    assert journal is not None
    assert value is not None
    assert (epoch.kind, epoch.epoch, epoch.size) == ("epoch", 3, 10)
    assert (cancel.kind, cancel.epoch) == ("cancel", 0)
    assert (journal.kind, journal.epoch, journal.number) == ("journal", 3, 12)
    assert (value.kind, value.epoch, value.number) == ("value", 3, 2)
    assert value.task_hash == keys.task_hash("t")


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "1-2.epoch",
        "1.journal",
        "1-x.journal",
        "1-2-3.journal",
        "1-abc-2.value",
        "x-abc-2-3.value",
        "²-3.journal",
        "1-abc-²-3.value",
        ".epoch",
        "epoch",
        ".cancel",
        "",
    ],
)
def test_a_foreign_file_in_a_workflows_folder_is_nothing(name: str):
    assert keys.parse_workflow_file(f"v1/workflows/w/{name}", 1) is None


def test_the_key_of_a_lease_tells_its_manager():
    assert keys.manager_of_lease(keys.lease_key("5f0c")) == "5f0c"


@pytest.mark.parametrize(
    "key", ["v1/leases/notes.txt", "v1/leases/.json", "v1/leases/m/other.json", "v1/owners/m.json"]
)
def test_a_foreign_file_is_no_lease(key: str):
    assert keys.manager_of_lease(key) is None


def test_the_key_of_an_event_tells_the_segment_of_its_workflow():
    assert keys.segment_of_event(keys.event_key("Flights", "landed", 0)) == "%46lights"


@pytest.mark.parametrize(
    "key",
    ["v1/events/w/k/notes.json", "v1/events/w/k/00000000.txt", "v1/events/w/00000000.json"],
)
def test_a_foreign_file_is_no_event(key: str):
    assert keys.segment_of_event(key) is None


def test_the_key_of_a_change_log_tells_its_writer():
    assert keys.change_log_key("5f0c") == "v1/changes/5f0c.json"
    assert keys.writer_of_change_log(keys.change_log_key("5f0c")) == "5f0c"


@pytest.mark.parametrize(
    "key",
    ["v1/changes/notes.txt", "v1/changes/.json", "v1/changes/m/other.json", "v1/leases/m.json"],
)
def test_a_foreign_file_is_no_change_log(key: str):
    assert keys.writer_of_change_log(key) is None
