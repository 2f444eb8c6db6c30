"""An exception of a task fails that task alone, of any class and with any behaviour."""

from __future__ import annotations

import asyncio
import logging

import effects
import pytest
import ray

from airflow_provider_rayworkflow import workflow
from airflow_provider_rayworkflow.workflow.runtime.worker.task import describe, encode_exception


class Own(BaseException):
    pass


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoTextAtAll(BaseException):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Text(str):
    pass


class OddText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class NoPickle(Exception):
    def __reduce__(self):
        raise asyncio.CancelledError


class NoUnpickling(Exception):
    def __init__(self, one, two) -> None:
        super().__init__("one text")


class NoArgs(Exception):
    @property
    def args(self):  # type: ignore[override]
        raise Own("no args")


class Unequal(Exception):
    def __eq__(self, other: object) -> bool:
        raise Own("not comparable")

    __hash__ = Exception.__hash__


class Untrue(Exception):
    def __bool__(self) -> bool:
        raise Own("neither true nor false")


class NoTraceback(Exception):
    @property
    def __traceback__(self):  # type: ignore[override]
        raise Own("no traceback")


def caused_by_untrue() -> Exception:
    error = ValueError("caused")
    error.__cause__ = Untrue()
    return error


EXCEPTIONS = [
    asyncio.CancelledError("stop"),
    GeneratorExit("end"),
    KeyboardInterrupt(),
    SystemExit(3),
    StopIteration(1),
    StopAsyncIteration(),
    MemoryError("my own"),
    Own("own"),
    BaseExceptionGroup("group", [KeyboardInterrupt(), ValueError("in it")]),
    ExceptionGroup("group", [ValueError("in it"), NoText()]),
    NoText("x"),
    NoTextAtAll(),
    OddText(),
    NoPickle("x"),
    NoUnpickling(1, 2),
    NoArgs("x"),
    Unequal("x"),
    Untrue("x"),
    NoTraceback("x"),
    caused_by_untrue(),
]
IDS = [type(error).__name__ for error in EXCEPTIONS]
by_kind = pytest.mark.parametrize("number", range(len(EXCEPTIONS)), ids=IDS)


def raise_it(number: int):
    effects.calls.append(number)
    raise EXCEPTIONS[number]


raises = ray.remote(raise_it)


@ray.remote
def kind_of(caught) -> str:
    value, error = caught
    assert value is None
    return type(error).__name__


@by_kind
def test_any_exception_fails_its_task_once_with_its_own_traceback(workflows, number: int):
    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(
            raises.options(**workflow.options(task_id="bad")).bind(number), workflow_id="w"
        )
    assert effects.calls == [number]
    assert workflows.get_status("w") is workflow.FAILED
    assert caught.value.task_id == "bad"
    assert isinstance(caught.value.__cause__, BaseException)
    assert IDS[number] in str(caught.value)
    assert "raise EXCEPTIONS[number]" in str(caught.value)
    assert "in call" not in str(caught.value)


class FailingHandler(logging.Handler):
    """As one whose stream is closed: ``logging`` prints the error, with all that led to it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            raise ValueError("I/O operation on closed file")
        except ValueError:
            self.handleError(record)


@by_kind
def test_any_exception_fails_its_task_once_where_a_log_handler_fails(
    workflows, number: int, caplog
):
    caplog.set_level(logging.INFO)
    handler = FailingHandler()
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.run(raises.bind(number), workflow_id="w")
    finally:
        logging.getLogger().removeHandler(handler)
    assert effects.calls == [number]
    assert workflows.get_status("w") is workflow.FAILED


@by_kind
def test_any_exception_is_caught_by_catch_exceptions(workflows, number: int):
    catching = raises.options(**workflow.options(catch_exceptions=True)).bind(number)
    name = workflow.run(kind_of.bind(catching))
    assert name in (IDS[number], "RuntimeError")  # what can't be pickled is told by its text
    assert effects.calls == [number]


@by_kind
def test_any_exception_is_retried_where_that_is_asked_for(workflows, number: int):
    twice = workflow.Retry(attempts=2, wait_initial=0)
    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(raises.options(**workflow.options(retry=twice)).bind(number))
    assert effects.calls == [number, number]


def test_an_exception_that_is_not_named_is_not_retried(workflows):
    named = workflow.Retry(attempts=2, wait_initial=0, on=(ValueError, KeyboardInterrupt))
    for error, tries in [(Own, 1), (KeyboardInterrupt, 2)]:
        effects.calls.clear()
        number = next(i for i, one in enumerate(EXCEPTIONS) if type(one) is error)
        with pytest.raises(workflow.WorkflowExecutionError):
            workflow.run(raises.options(**workflow.options(retry=named)).bind(number))
        assert len(effects.calls) == tries


@by_kind
def test_any_exception_in_a_continuation_fails_that_task(workflows, number: int):
    @ray.remote
    def start():
        return workflow.continuation(
            raises.options(**workflow.options(task_id="inner")).bind(number)
        )

    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(start.bind())
    assert caught.value.task_id == "inner"
    assert effects.calls == [number]


@by_kind
def test_any_exception_of_a_listener_fails_its_event(workflows, number: int):
    class Raises(workflow.EventListener):
        async def poll_for_event(self):
            raise_it(number)

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(workflow.wait_for_event(Raises), workflow_id="w")
    if IDS[number] != "MemoryError":  # the process, which many share, had none: see test_waits
        assert effects.calls == [number]
        assert workflows.get_status("w") is workflow.FAILED
    assert workflow.run(workflow.sleep(0)) is None  # others wait as before


def test_the_traceback_of_a_listener_is_its_own(workflows):
    class Raises(workflow.EventListener):
        async def poll_for_event(self):
            raise ValueError("mine")

    with pytest.raises(workflow.WorkflowExecutionError) as caught:
        workflow.run(workflow.wait_for_event(Raises))
    assert 'raise ValueError("mine")' in str(caught.value)
    assert "waits.py" not in str(caught.value)


@by_kind
def test_the_description_of_an_exception_is_plain_text(number: int):
    failure = describe("task", EXCEPTIONS[number])
    assert {type(text) for text in (failure.message, failure.traceback, failure.type)} == {str}
    assert encode_exception(EXCEPTIONS[number], failure)


def test_the_end_of_its_process_by_ray_is_no_exception_of_the_task(workflows):
    @ray.remote
    def ended():
        effects.calls.append("ended")
        error = SystemExit(1)
        error.ray_terminate_msg = "The process receives a SIGTERM."  # type: ignore[attr-defined]
        raise error

    with pytest.raises(workflow.WorkflowExecutionError):
        workflow.run(ended.bind(), workflow_id="w")
    assert len(effects.calls) == 4  # Ray's max_retries
    assert workflows.get_status("w") is workflow.RESUMABLE
