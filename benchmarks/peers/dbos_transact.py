"""DBOS Transact with SQLite: a workflow of steps."""

import tempfile

from answering import answer, seconds  # isort: split

from dbos import DBOS


@DBOS.step()
def add_one(value):
    return value + 1


@DBOS.workflow()
def pipeline(steps):
    value = 0
    for _ in range(steps):
        value = add_one(value)
    return value


with tempfile.TemporaryDirectory() as folder:
    DBOS(
        config={
            "name": "steps",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    answer({"pipeline": lambda steps: seconds(lambda: pipeline(steps))})
    DBOS.destroy()
