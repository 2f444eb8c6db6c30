"""The training of docs/examples/training.py, killed five times, ends on another cluster as if it had not been."""

import json
import os
import runpy
import signal
import threading
from collections import Counter
from pathlib import Path
from random import Random

import drivers
import pytest
from witness import is_alive, wait_until

from airflow_provider_rayworkflow import workflow

PROGRAM = Path(__file__).parents[3] / "docs" / "examples" / "training.py"
EPOCHS = 24
TASKS = ("train_with_states", "train_with_checkpoints")

# Workers die at a random moment after the epochs in which that is due begin. In the last of these epochs, the
# task waits for the end of its cluster.
TRAINING = """
import json, random, runpy, threading

training = runpy.run_path(PROGRAM)
deaths = json.loads((here / "deaths").read_text())

def begin(name, epoch):
    ledger = Ledger(here / name)
    ledger.write(epoch)
    done = here / f"{name}-{epoch}-died"
    if epoch not in deaths[name] or done.exists():
        return
    done.write_text(f"{os.getpid()} ")
    if epoch == deaths[name][-1]:
        gate.wait()
    else:
        threading.Timer(random.uniform(0, 0.05), os.kill, (os.getpid(), 9)).start()

def train(name):
    return training[name](EPOCHS, functools.partial(begin, name))
"""

FIRST = """
for name in ("train_with_states", "train_with_checkpoints"):
    workflow.run_async(train(name), workflow_id=name)
time.sleep(600)
"""

SECOND = """
results = {name: workflow.resume(name) for name in ("train_with_states", "train_with_checkpoints")}
(here / "results").write_text(json.dumps(results))
"""

HEAD = f"import functools\nPROGRAM, EPOCHS = {str(PROGRAM)!r}, {EPOCHS}\n{TRAINING}"


def pid_in(file):
    """The process that has written the file; 0 while that is not whole."""
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith(" ") else 0


def uninterrupted():
    training = runpy.run_path(str(PROGRAM))
    x, y = training["load"]()
    state, losses = training["new_state"](), []
    for epoch in range(EPOCHS):
        losses.append(
            training["train_epoch"](*[state[k] for k in ("model", "optimizer")], x, y, epoch)
        )
    return {"weights": state["model"]["weights"].tolist(), "losses": losses}


@pytest.mark.slow
def test_a_training_that_is_killed_five_times_repeats_an_epoch_for_each_kill_at_most(tmp_path):
    random = Random(2013)
    deaths = {name: sorted(random.sample(range(1, EPOCHS - 2), 5)) for name in TASKS}
    (tmp_path / "deaths").write_text(json.dumps(deaths))
    storage = tmp_path / "storage"
    last = [tmp_path / f"{name}-{deaths[name][-1]}-died" for name in TASKS]
    with drivers.cluster(HEAD + FIRST, tmp_path, storage) as first:
        wait_until(lambda: all(map(pid_in, last)) or first.poll(), deadline_s=240)
        assert first.poll() is None, (tmp_path / "output").read_text()
    wait_until(lambda: not any(is_alive(pid_in(file)) for file in last))
    (tmp_path / "gate").touch()
    with drivers.cluster(HEAD + SECOND, tmp_path, storage) as second:
        assert second.wait(240) == 0, (tmp_path / "output").read_text()
    results = json.loads((tmp_path / "results").read_text())
    for name in TASKS:
        begun = Counter(map(int, (tmp_path / name).read_text().split()))
        assert begun.keys() == set(range(EPOCHS))
        assert len(list(tmp_path.glob(f"{name}-*-died"))) == 5
        assert begun.total() <= EPOCHS + 5
        assert results[name] == uninterrupted()
    assert results["train_with_states"]["losses"][-1] < results["train_with_states"]["losses"][0]


@pytest.mark.parametrize("name", TASKS)
def test_the_example_trains_to_the_same_model_by_either_habit(manager, new_id, name):
    training = runpy.run_path(str(PROGRAM))
    assert workflow.run(training[name](EPOCHS), workflow_id=new_id) == uninterrupted()


def test_a_training_in_pytorch_that_is_killed_ends_with_the_same_model(manager, new_id, tmp_path):
    pytest.importorskip("torch")  # a gigabyte for one test: where it is installed anyway
    training = runpy.run_path(str(PROGRAM.with_name("training_torch.py")))
    dies_in = {3, 4, 9}

    def begin(epoch):
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{epoch}\n")
        died = tmp_path / f"{epoch}-died"
        if epoch in dies_in and not died.exists():
            died.touch()
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()

    killed = workflow.run(training["train"](EPOCHS, begin), workflow_id=new_id)
    begun = Counter(map(int, (tmp_path / "begun").read_text().split()))
    assert begun.keys() == set(range(EPOCHS))
    assert begun.total() <= EPOCHS + len(dies_in)
    assert len(list(tmp_path.glob("*-died"))) == len(dies_in)
    assert killed == workflow.run(training["train"](EPOCHS), workflow_id=f"{new_id}-whole")
    assert killed["losses"][-1] < killed["losses"][0]
