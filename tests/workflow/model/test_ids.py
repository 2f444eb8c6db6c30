"""Which ids are taken, and how tasks of one name get different ones."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.api import new_workflow_id
from airflow_provider_rayworkflow.workflow.model.ids import (
    TaskIds,
    check_workflow_id,
    default_task_id,
)


@pytest.mark.parametrize(
    "workflow_id",
    [
        "w",
        "a" * 255,
        "my_dag.my_task.scheduled__2013-01-01T00:00:00+00:00.3",
        "with spaces and / slashes",
        "..a/...",
        "Łódź 東京 🚀",
        "%41%2f~",
        "-",
    ],
)
def test_a_printable_id_is_taken_as_it_is(workflow_id: str):
    assert check_workflow_id(workflow_id) == workflow_id


@pytest.mark.parametrize(
    ("workflow_id", "what"),
    [
        ("", "'' is empty"),
        ("../x", "'../x' contains a relative path"),
        ("..", "'..' contains a relative path"),
        (".", "'.' contains a relative path"),
        ("a/../b", "'a/../b' contains a relative path"),
        ("a\\..\\b", r"'a\\..\\b' contains a relative path"),
        ("a\0b", r"'a\x00b' contains the control character '\x00'"),
        ("a\nb", r"'a\nb' contains the control character '\n'"),
        ("a\x7fb", r"'a\x7fb' contains the control character '\x7f'"),
        ("a\x9bb", r"'a\x9bb' contains the control character '\x9b'"),
        ("a\ud800b", r"'a\ud800b' contains the control character '\ud800'"),
        ("x" * 300, f"'{'x' * 77}'... has 300 characters"),
        ("x" * 256, f"'{'x' * 77}'... has 256 characters"),
    ],
)
def test_any_other_id_is_refused_with_what_is_wrong_and_what_to_do(workflow_id: str, what: str):
    with pytest.raises(ValueError, match="The workflow id") as raised:
        check_workflow_id(workflow_id)
    assert str(raised.value) == (
        f"The workflow id {what}. Use 1 to 255 printable characters, "
        "without '.' or '..' between slashes."
    )


@pytest.mark.parametrize(
    ("workflow_id", "kind"), [(None, "NoneType"), (7, "int"), (b"w", "bytes"), (["w"], "list")]
)
def test_an_id_that_is_not_a_string_is_refused_with_its_type(workflow_id: object, kind: str):
    with pytest.raises(TypeError) as raised:
        check_workflow_id(workflow_id)
    assert str(raised.value) == (
        f"workflow_id has to be a string type. {workflow_id!r} is of type {kind}."
    )


def test_a_new_id_is_legal_and_new():
    ids = {new_workflow_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(check_workflow_id(made) == made for made in ids)


def test_a_function_gives_its_tasks_a_plain_name():
    def größe() -> None: ...

    assert default_task_id(größe) == (
        "test_ids.test_a_function_gives_its_tasks_a_plain_name.locals.groe"
    )
    assert default_task_id(functools.partial(größe)) == "functools.__anonymous_func__"
    assert default_task_id(len) == "builtins.len"


# ---- ids of tasks


def allocated(names: list[str], *, by_author: set[str] = frozenset()) -> list[str]:
    ids = TaskIds()
    ids.reserve(set(by_author))
    return [ids.allocate(name) for name in names]


def test_tasks_of_one_name_are_numbered():
    assert allocated(["simple"] * 20) == ["simple", *(f"simple_{n}" for n in range(1, 20))]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["f_1", "f", "f"], ["f_1", "f", "f_2"]),
        (["f", "f", "f_1"], ["f", "f_2", "f_1"]),
        (["f", "f_1", "f"], ["f", "f_1", "f_2"]),
        (["f", "f", "f_1", "f_1"], ["f", "f_2", "f_1", "f_1_1"]),
        (["f", "f", "f_2", "f_1", "f"], ["f", "f_1", "f_2", "f_1_1", "f_3"]),
    ],
)
def test_a_name_that_the_author_wrote_is_not_taken_by_a_numbered_one(
    names: list[str], expected: list[str]
):
    by_author = {"f_1"} if "f_2" not in names else {"f_2"}
    assert allocated(names, by_author=by_author) == expected


def test_a_name_that_a_numbered_task_got_before_gets_a_number_itself():
    ids = TaskIds()
    assert [ids.allocate("f"), ids.allocate("f")] == ["f", "f_1"]
    ids.reserve({"f_1"})  # a continuation brings it later
    assert [ids.allocate("f_1"), ids.allocate("f")] == ["f_1_1", "f_2"]


def test_ids_of_an_earlier_run_are_not_given_again():
    ids = TaskIds()
    ids.observe("f_7", "f")
    ids.observe("g", "g")
    assert [ids.allocate("f"), ids.allocate("g"), ids.allocate("f_7")] == ["f_8", "g_1", "f_7_1"]


@pytest.mark.parametrize("name", ["f_²", "f_٣", "f_01", "f_", "_1", "²", "f_-1"])
def test_a_name_may_end_in_anything_that_looks_like_a_number(name: str):
    assert allocated(["f", "f", name, name]) == ["f", "f_1", name, f"{name}_1"]


NAMES = st.sampled_from(["f", "f_1", "f_2", "f_1_1", "g", "f_", "f_01", "_1", "f_٣"])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), NAMES),
        st.tuples(st.just("reserve"), st.sets(NAMES, max_size=3)),
        st.tuples(st.just("observe"), NAMES, st.integers(0, 3)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_no_two_tasks_ever_get_the_same_id(actions: list[tuple]):
    ids, given_out = TaskIds(), set()
    for action, *arguments in actions:
        if action == "allocate":
            task_id = ids.allocate(arguments[0])
            assert task_id not in given_out
            given_out.add(task_id)
        elif action == "reserve":
            ids.reserve(arguments[0])
        else:
            name, number = arguments
            task_id = f"{name}_{number}" if number else name
            ids.observe(task_id, name)
            given_out.add(task_id)
