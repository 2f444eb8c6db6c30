"""Which tasks share a Ray task."""

from __future__ import annotations

from airflow_provider_rayworkflow.workflow.model.records import Blob, Result
from airflow_provider_rayworkflow.workflow.scheduling.attempts import Accept, Errand, TaskRun
from airflow_provider_rayworkflow.workflow.scheduling.packing import Durations, Packer

SHORT, LONG, UNKNOWN = b"short", b"long", b"unknown"


def durations(short_s: float = 1 / 1024) -> Durations:
    known = Durations()
    known.note(SHORT, short_s)
    known.note(LONG, 1.0)
    return known


def run(name: str, function: bytes = SHORT, **changes: object) -> TaskRun:
    fields = {"arguments": b"", "ray_options": b"", "inputs": (), "can_share": True} | changes
    return TaskRun(
        workflow_id=f"workflow of {name}",
        epoch=1,
        task_id=name,
        attempt=1,
        function=function,
        checkpoint=True,
        wants_json=False,
        **fields,
    )


def errand(name: str, function: bytes = SHORT, **changes: object) -> Errand:
    return Errand(run(name, function, **changes))


class chain(Errand):
    """A linear run; each task gives the next one, if that is accepted."""

    def __init__(self, *runs: TaskRun) -> None:
        super().__init__(runs[0])
        self._after = runs[1:]

    def follow(self, accept: Accept) -> Errand | None:
        return chain(*self._after) if self._after and accept(self._after[0]) else None


def packs(waiting: list[Errand], *, slots: int, known: Durations | None = None) -> list[list[str]]:
    """The ids of the tasks of each pack, until nothing waits."""
    packer = Packer(known or durations())
    for one in waiting:
        packer.add(one)
    found = []
    while packer:
        found.append([one.run.task_id for one in packer.take(slots)])
    return found


def test_tasks_of_runs_with_other_code_share_nothing():
    old, new = (("RAYWORKFLOW_CODE", "1"),), (("RAYWORKFLOW_CODE", "2"),)
    tasks = [errand("a", code=old), errand("b", code=new), errand("c", code=old)]
    assert packs(tasks, slots=1) == [["a", "c"], ["b"]]
    chained = chain(run("a", code=old), run("b", code=old), run("c", code=new))
    packer = Packer(durations())
    packer.add(chained)
    assert [one.run.task_id for one in packer.take(1)] == ["a", "b"]


def test_short_tasks_of_any_workflow_share_as_far_as_the_budget_goes():
    tasks = [errand(f"t{i}") for i in range(45)]
    assert [len(pack) for pack in packs(tasks, slots=1)] == [20, 20, 5]


def test_waiting_tasks_are_spread_over_the_free_slots():
    tasks = [errand(name) for name in "abcdef"]
    assert packs(tasks, slots=4) == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]


def test_fewer_tasks_than_slots_share_nothing():
    assert packs([errand("a"), errand("b")], slots=4) == [["a"], ["b"]]


def test_a_task_that_was_not_measured_shares_nothing():
    tasks = [errand("a"), errand("b", UNKNOWN), errand("c"), errand("d")]
    assert packs(tasks, slots=1) == [["a"], ["b"], ["c", "d"]]


def test_tasks_of_another_environment_get_another_ray_task():
    tasks = [errand("a"), errand("b", ray_options=b"x"), errand("c"), errand("d", ray_options=b"x")]
    assert packs(tasks, slots=1) == [["a", "c"], ["b", "d"]]


def test_large_payloads_are_not_put_together():
    tasks = [errand(name, arguments=bytes(600_000)) for name in "ab"]
    assert packs(tasks, slots=1) == [["a"], ["b"]]


def test_a_task_that_takes_large_values_shares_with_followers_only():
    large = Result(blob=Blob(key="k", size=1, sum="8d4be5a2-11"))
    tasks = [errand("a"), chain(run("b", inputs=(large,)), run("c")), errand("d")]
    assert packs(tasks, slots=1) == [["a"], ["b", "c"], ["d"]]


def test_a_linear_run_stays_together_as_far_as_the_budget_goes():
    line = chain(*[run(f"t{i}") for i in range(50)])
    assert [len(pack) for pack in packs([line], slots=4)] == [20]


def test_a_linear_run_ends_before_what_may_not_share():
    for other in (
        run("b", LONG),
        run("b", UNKNOWN),
        run("b", can_share=False),
        run("b", ray_options=b"x"),
    ):
        assert packs([chain(run("a"), other, run("c"))], slots=1) == [["a"]]


def test_nothing_follows_what_was_not_measured():
    assert packs([chain(run("a", UNKNOWN), run("b"))], slots=1) == [["a"]]


def test_a_function_that_proves_long_gives_up_its_place():
    packer = Packer(durations())
    first, other, second = errand("a", UNKNOWN), errand("b"), errand("c", UNKNOWN)
    for one in (first, other, second):
        packer.add(one)
    assert packer.take_long(UNKNOWN) == [first, second]
    assert packer.take(1) == [other]
    assert not packer


def test_a_removed_task_is_not_packed():
    packer = Packer(durations())
    first, second = errand("a"), errand("b")
    packer.add(first)
    packer.add(second)
    assert packer.remove(first)
    assert not packer.remove(first)
    assert packer.take(1) == [second]


def test_durations_follow_what_is_measured():
    known = Durations()
    assert known.of(SHORT) is None
    assert not known.is_long(SHORT)
    known.note(SHORT, 0.04)
    assert known.is_long(SHORT)
    for _ in range(3):
        known.note(SHORT, 0.0)
    assert known.of(SHORT) == 0.005


def test_durations_of_the_oldest_functions_are_forgotten():
    known = Durations()
    for number in range(10_001):
        known.note(b"%d" % number, 1.0)
    assert known.of(b"0") is None
    assert known.of(b"10000") == 1.0


def test_items_of_a_map_share_by_their_batch_size_however_long_they_take():
    tasks = [errand(f"t{i}", LONG, batch_size=4) for i in range(10)]
    assert [len(pack) for pack in packs(tasks, slots=1)] == [4, 4, 2]
    unknown = [errand(f"t{i}", UNKNOWN, batch_size=4) for i in range(5)]
    assert [len(pack) for pack in packs(unknown, slots=1)] == [4, 1]


def test_a_batch_has_no_tasks_of_other_functions():
    tasks = [
        errand("a", LONG, batch_size=9),
        errand("b", SHORT),
        errand("c", UNKNOWN, batch_size=9),
        errand("d", LONG, batch_size=3),
    ]
    assert packs(tasks, slots=1) == [["a"], ["b"], ["c"], ["d"]]


def test_items_of_a_batch_that_take_large_values_share_them():
    large = Result(blob=Blob(key="k", size=10**9, sum=""))
    tasks = [errand(f"t{i}", LONG, batch_size=3, inputs=(large,)) for i in range(3)]
    assert packs(tasks, slots=1) == [["t0", "t1", "t2"]]


def test_a_function_that_proved_to_be_long_keeps_its_batches():
    packer = Packer(durations())
    for one in (errand("a", UNKNOWN), errand("b", UNKNOWN, batch_size=2)):
        packer.add(one)
    assert [one.run.task_id for one in packer.take_long(UNKNOWN)] == ["a"]
    assert len(packer) == 1
