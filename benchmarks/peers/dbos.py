"""DBOS Transact with SQLite: seconds for a workflow of steps. Prints JSON."""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
from dbos import DBOS  # noqa: E402 this file has its name

rounds, steps = int(sys.argv[1]), int(sys.argv[2])


with tempfile.TemporaryDirectory() as folder:
    DBOS(
        config={
            "name": "steps",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )

    @DBOS.step()
    def add_one(value):
        return value + 1

    @DBOS.workflow()
    def pipeline():
        value = 0
        for _ in range(steps):
            value = add_one(value)
        return value

    DBOS.launch()
    times = []
    for _ in range(rounds + 1):
        begun_at = time.perf_counter()
        assert pipeline() == steps
        times.append(time.perf_counter() - begun_at)
    DBOS.destroy()
print(json.dumps({"seconds": statistics.median(times[1:])}))
