"""What can't be reached is asked again, at longer and longer intervals, for a set time."""

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
