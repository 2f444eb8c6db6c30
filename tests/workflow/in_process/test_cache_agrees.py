"""The cache against a model: any order of workflows gives the results of their own inputs and code, each computed once."""

from __future__ import annotations

from typing import Any, NamedTuple

import effects
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow import testing


class Call(NamedTuple):
    """A call of a task in a graph.

    :ivar code: which of the functions of one name it calls.
    :ivar size: how many bytes its result has besides.
    """

    code: int
    value: Any
    takes: tuple[Call, ...]
    size: int

    @property
    def expected(self) -> Any:
        """What describes the inputs and the code, as the task returns it."""
        return [self.code, repr(self.value), [one.expected for one in self.takes], "x" * self.size]

    @property
    def all(self) -> set[str]:
        """The texts of this call and of all that it needs."""
        return {repr(self.expected)}.union(*[one.all for one in self.takes])

    @property
    def node(self) -> Any:
        return TASKS[self.code](self.value, [one.node for one in self.takes], self.size)


def describing(code: int) -> Any:
    @workflow.task(cache=workflow.Cache())
    def describe(value: Any, taken: list[Any], size: int) -> Any:
        effects.note(code)
        return [code, repr(value), taken, "x" * size]

    return describe


TASKS = [describing(code) for code in range(3)]
VALUES = st.sampled_from([0, 1, 1.0, True, "1", None, (1,), [1], {"a": 1}, {"a": 2}, ""])
SIZES = st.sampled_from([0, 1, 50_000])
CODES = st.integers(0, 2)
CALLS = st.recursive(
    st.builds(Call, CODES, VALUES, st.just(()), SIZES),
    lambda calls: st.builds(Call, CODES, VALUES, st.lists(calls, max_size=2).map(tuple), SIZES),
    max_leaves=4,
)


@pytest.mark.timeout(120)
@given(st.lists(CALLS, min_size=1, max_size=5))
def test_each_result_is_of_its_own_inputs_and_code_and_computed_once(given_calls: list[Call]):
    with effects.fresh(), testing.in_process() as workflows:
        for call in given_calls:
            assert workflows.run(call.node) == call.expected
        assert len(effects.calls) == len(set().union(*[call.all for call in given_calls]))
