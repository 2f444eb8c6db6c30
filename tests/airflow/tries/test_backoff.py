"""What can't be reached is asked again, at longer and longer intervals, for a set time."""

import pytest

from airflow_provider_rayworkflow.tries.backoff import Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waits_become_longer_and_end_with_the_time():
    clock = Clock()
    backoff = Backoff(100, clock=clock)
    waits = []
    while (wait_s := backoff.failed()) is not None:
        waits.append(wait_s)
        clock.now += wait_s
    assert waits == [1, 2, 4, 8, 16, 30, 30, 9]


def test_a_success_starts_the_time_over():
    clock = Clock()
    backoff = Backoff(10, clock=clock)
    assert backoff.failed() == 1
    clock.now = 9
    backoff.worked()
    clock.now = 18
    assert backoff.failed() == 1


def test_without_time_there_is_no_second_attempt():
    assert Backoff(0).failed() is None


class Service:
    """Can't be reached for some calls, then answers how many there were."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("No answer", "No answer; next attempt in 1 s"),
        ("No answer.", "No answer. Next attempt in 1 s"),
    ],
)
def test_a_call_is_repeated_until_the_service_answers_and_each_wait_is_logged(text: str, line: str):
    lines: list[str] = []
    waits: list[float] = []
    answer = Backoff(100, clock=Clock()).retrying(
        Service(2, OSError(text)),
        errors=OSError,
        warn=lambda form, *args: lines.append(form % args),
        wait=waits.append,
    )
    assert answer == 3
    assert waits == [1, 2]
    assert lines[0] == line


def test_the_last_error_is_raised_when_the_time_is_over():
    clock = Clock()

    def wait(seconds: float) -> None:
        clock.now += seconds

    service = Service(99, OSError("No answer"))
    with pytest.raises(OSError, match="No answer"):
        Backoff(3, clock=clock).retrying(service, errors=OSError, warn=lambda *_: None, wait=wait)
    assert service.calls == 3  # at once, after one second, and after three


def test_a_caller_that_stops_makes_no_further_attempt():
    service = Service(99, OSError("No answer"))
    with pytest.raises(OSError, match="No answer"):
        Backoff(100).retrying(
            service, errors=OSError, warn=lambda *_: None, is_stopping=lambda: True
        )
    assert service.calls == 1


def test_another_error_is_raised_at_once():
    service = Service(99, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        Backoff(100).retrying(service, errors=OSError, warn=lambda *_: None)
    assert service.calls == 1


def test_an_error_that_does_not_pass_is_raised_at_once():
    service = Service(99, OSError("the disk is full"))
    with pytest.raises(OSError, match="the disk is full"):
        Backoff(100).retrying(
            service,
            errors=OSError,
            warn=lambda *_: None,
            may_pass=lambda exc: "full" not in str(exc),
        )
    assert service.calls == 1
