"""What an attempt prints becomes lines, which are bounded, and sent until they are confirmed."""

import threading

from airflow_provider_rayworkflow.workflow.model.log_line import MAX_LINE_BYTES
from airflow_provider_rayworkflow.workflow.runtime.worker.reports import send_waiting
from airflow_provider_rayworkflow.workflow.runtime.worker.task_log import MAX_WAITING_BYTES, TaskLog
from airflow_provider_rayworkflow.workflow.scheduling.attempts import TaskRun

RUN = TaskRun(
    workflow_id="w",
    epoch=3,
    task_id="load",
    attempt=2,
    function=b"",
    arguments=b"",
    ray_options=b"",
    inputs=(),
    checkpoint=True,
    wants_json=False,
)


def task_log() -> TaskLog:
    return TaskLog(RUN, clock=lambda: 5.0)


def rest(given: TaskLog) -> list[str]:
    lines = given.rest()
    return [] if lines is None else [line.text for line in lines.lines]


def test_lines_have_their_task_attempt_time_and_level():
    given = task_log()
    given.print("stdout", "a\n")
    given.log("ERROR", "b")
    sent = given.rest()
    assert sent is not None
    assert (sent.workflow_id, sent.epoch, sent.sender, sent.first) == ("w", 3, "", 0)
    assert sent.lines == ((5.0, "INFO", "load", 2, "a"), (5.0, "ERROR", "load", 2, "b"))


def test_a_silent_task_sends_nothing():
    given = task_log()
    assert given.begin_to_send() is None
    assert given.rest() is None


def test_parts_of_lines_are_put_together_for_each_stream():
    given = task_log()
    given.print("stdout", "a")
    given.print("stderr", "x")
    given.print("stdout", "b\nc")
    given.print("stderr", "y\n")
    assert rest(given) == ["ab", "xy", "c"]


def test_a_progress_bar_is_one_line():
    given = task_log()
    for percent in range(101):
        given.print("stderr", f"\r{percent:3}%|{'#' * percent}")
    given.print("stderr", "\n")
    given.print("stdout", "done\n")
    assert rest(given) == [f"100%|{'#' * 100}", "done"]


def test_a_progress_bar_that_never_ends_takes_no_memory():
    given = task_log()
    for _ in range(100):
        given.print("stderr", "\r" + "x" * 10_000)
    assert len(given._partial["stderr"]) < 4 * MAX_LINE_BYTES
    assert rest(given) == ["x" * 10_000]


def test_a_line_that_never_ends_is_cut_to_lines():
    given = task_log()
    for _ in range(100):
        given.print("stdout", "x" * 10_000)
    texts = rest(given)
    assert all(len(text) < 2 * MAX_LINE_BYTES for text in texts)
    assert sum(map(len, texts)) == 1_000_000


def test_blank_lines_and_what_labels_the_output_are_left_out():
    given = task_log()
    given.print("stdout", "\n  \n:task_name:w@load\nx\n\x1b[0m\n")
    assert rest(given) == ["x"]


def test_what_comes_too_fast_is_left_out_with_a_note():
    given = task_log()
    for _ in range(200):
        given.print("stdout", ("x" * 10_000) + "\n")
    sent = given.rest()
    assert sent is not None
    assert sum(line.size for line in sent.lines) < MAX_WAITING_BYTES + 20_000
    assert "lines are left out here" in sent.lines[-1].text
    assert sent.lines[-1].level == "WARNING"


def test_what_is_not_confirmed_comes_again_with_its_number():
    given = task_log()
    given.print("stdout", "a\n")
    first = given.begin_to_send()
    assert first is not None
    assert given.begin_to_send() is None  # one at a time
    given.print("stdout", "b\n")
    given.sent(is_confirmed=False)
    again = given.begin_to_send()
    assert again == first
    given.sent(is_confirmed=True)
    last = given.rest()
    assert last is not None
    assert (last.sender, last.first, [line.text for line in last.lines]) == (first.sender, 1, ["b"])


def test_the_end_brings_what_is_on_its_way_and_nothing_follows():
    given = task_log()
    given.print("stdout", "a\n")
    given.begin_to_send()
    given.print("stdout", "b\n")
    last = given.rest()
    assert last is not None
    assert (last.first, [line.text for line in last.lines]) == (0, ["a", "b"])
    given.sent(is_confirmed=True)
    given.print("stdout", "a thread that goes on\n")
    assert given.begin_to_send() is None


def test_one_call_sends_what_waits_in_all_logs_of_a_process():
    logs, calls = [task_log() for _ in range(3)], []
    logs[0].print("stdout", "a\n")
    logs[2].print("stdout", "b\n")
    send_waiting(logs, lambda lines: bool(calls.append(lines)) or True)
    send_waiting(logs, lambda lines: bool(calls.append(lines)) or True)
    assert [[line.text for sent in call for line in sent.lines] for call in calls] == [["a", "b"]]


def test_threads_may_print_at_the_same_time():
    given = task_log()

    def work(number: int) -> None:
        for _ in range(200):
            given.print("stdout", f"{number}\n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rest(given)) == sorted(str(number) for number in range(5) for _ in range(200))
