"""A try of a mapped task instance is for the same item as the one before, in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_rayworkflow.decorators import ray_workflow_task
from airflow_provider_rayworkflow.hooks import RayWorkflowHook
from airflow_provider_rayworkflow.operators import RayWorkflowRunOperator

HOOK = RayWorkflowHook()

# Prints the fingerprint of each item, by the name of its kind.
ITEMS = '''
import attr, collections, dataclasses, datetime, decimal, enum, json, pathlib, uuid, zoneinfo
import numpy, pandas, pendulum, pydantic
from airflow.sdk import DAG, Asset
from airflow_provider_rayworkflow.decorators import ray_workflow_task
from airflow_provider_rayworkflow.hooks import RayWorkflowHook

WORDS = {"alpha", "beta", "gamma", "delta", "epsilon"}

class Color(str, enum.Enum):
    RED, GREEN = "red", "green"

@dataclasses.dataclass
class Data:
    words: set
    more: dict

class Model(pydantic.BaseModel):
    words: set[str]
    more: dict[str, frozenset[str]]

@attr.define
class Attrs:
    words: set

class Serialized:
    """Its own serializer says the words in the order of this process."""
    def __init__(self, words):
        self.words = words
    def serialize(self):
        return [str(word) for word in self.words]

day = datetime.datetime(2026, 11, 29, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
items = {
    "set": WORDS,
    "frozenset": frozenset(WORDS),
    "nested": {"a": [{"b": (frozenset({("x", frozenset(WORDS))}),)}]},
    "dataclass": Data(WORDS, {"more": WORDS}),
    "pydantic": Model(words=WORDS, more={"more": frozenset(WORDS)}),
    "attrs": Attrs(WORDS),
    "own serializer": Serialized(WORDS),
    "order of keys": {word: 1 for word in WORDS},
    "enums": [Color.RED],
    "numpy": Serialized([numpy.arange(5)]),
    "numpy of objects": Serialized([numpy.array([WORDS, "b"])]),
    "pandas": Serialized([pandas.DataFrame({"a": [1, 2]})]),
    "zone": day,
    "pendulum": pendulum.instance(day),
    "path": Serialized([pathlib.Path("/a/b")]),
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=5),
    "asset": Asset("s3://bucket/key", extra={"a": "b"}),
}

def squares(item): ...

with DAG("d", schedule=None):
    mapped = ray_workflow_task(squares).expand(item=list(items.values())).operator
found = {
    kind: mapped.unmap({"op_kwargs": {"item": item}})._define({}, RayWorkflowHook()).fingerprint
    for kind, item in items.items()
}
print(json.dumps(found))
'''


def fingerprints_in_another_process(script: Path, *, seed: int) -> dict[str, str]:
    ended = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return json.loads(ended.stdout.splitlines()[-1])


def test_an_item_is_the_same_in_a_process_that_orders_sets_otherwise(tmp_path: Path):
    script = tmp_path / "items.py"
    script.write_text(ITEMS)
    one, other = (fingerprints_in_another_process(script, seed=seed) for seed in (1, 2))
    assert one == other
    assert all(one.values())
    assert len(set(one.values())) == len(one)


def grow(n, by=1, **more): ...


def of_decorated(mapped, **item: object) -> str:
    operator = mapped.operator
    return operator.unmap({"op_kwargs": item})._define({}, HOOK).fingerprint


def test_a_constant_argument_added_to_the_mapping_leaves_the_item_as_it_is():
    with DAG("before", schedule=None):
        before = ray_workflow_task(grow).expand(n=[1, 2])
    with DAG("after", schedule=None):
        after = ray_workflow_task(grow).partial(by=2).expand(n=[1, 2])
    with DAG("defaults", schedule=None, default_args={"by": 3}):
        with_default = ray_workflow_task(grow).expand(n=[1, 2])
        of_kwargs = ray_workflow_task(grow).partial(other=1).expand_kwargs([{"n": 1}, {"n": 2}])
    assert of_decorated(before, n=1) == of_decorated(after, n=1) != of_decorated(after, n=2)
    assert of_decorated(with_default, n=1) == of_decorated(before, n=1)
    assert of_decorated(of_kwargs, n=1) == of_decorated(before, n=1)


def test_a_function_that_has_another_name_runs_for_the_same_item():
    with DAG("before", schedule=None):
        before = ray_workflow_task(grow).expand(n=[1])
    with DAG("after", schedule=None):
        after = ray_workflow_task(lambda n: None, task_id="grow").expand(n=[1])
    assert of_decorated(before, n=1) == of_decorated(after, n=1)


def squares(**arguments): ...


def test_the_item_of_an_operator_is_what_was_expanded():
    with DAG("d", schedule=None):
        mapped = RayWorkflowRunOperator.partial(
            task_id="squares", workflow=squares, metadata={"constant": 1}
        ).expand(arguments=[{"n": 1}, {"n": 2}])

    def item(n: int, **changed: object) -> str:
        operator = mapped.unmap({"arguments": {"n": n}})
        for name, value in changed.items():
            setattr(operator, name, value)
        return operator._define({}, HOOK).fingerprint

    assert item(1) == item(1, metadata={"constant": 2}) != item(2)


def test_a_template_that_is_rendered_anew_at_each_try_leaves_the_item_as_it_is():
    with DAG("d", schedule=None):
        mapped = RayWorkflowRunOperator.partial(task_id="squares", workflow=squares).expand(
            arguments=[{"n": 1, "try": "{{ try_number }}"}]
        )
    found = set()
    for number in (1, 2):
        operator = mapped.unmap({"arguments": {"n": 1, "try": "{{ try_number }}"}})
        operator.render_template_fields({"try_number": number})
        assert operator.arguments["try"] == str(number)
        found.add(operator._define({}, HOOK).fingerprint)
    assert len(found) == 1


def test_the_item_of_a_mapped_task_group_is_what_the_group_was_expanded_with():
    @task
    def upstream(): ...

    def item(map_index: int, *args: object) -> str:
        with DAG("d", schedule=None) as dag:

            @task_group
            def group(x):
                ray_workflow_task(grow)(x, *args, other=upstream())

            group.expand(x=["a", "b"])
        operator = dag.task_dict["group.grow"]
        operator_of_try = operator.prepare_for_execution()
        ti = type("Ti", (), {"map_index": map_index})()
        operator_of_try.op_args, operator_of_try.op_kwargs = ["a"], {}
        return operator_of_try._define({"ti": ti, "map_index": map_index}, HOOK).fingerprint

    assert item(0) == item(0, "constant") != item(1)


@pytest.mark.parametrize("item", [{"a"}, {"words": frozenset({"a"})}])
def test_an_item_that_differs_is_another_one(item: object):
    with DAG("d", schedule=None):
        mapped = ray_workflow_task(grow).expand(n=[item])
    assert of_decorated(mapped, n=item) != of_decorated(mapped, n={"b"})
