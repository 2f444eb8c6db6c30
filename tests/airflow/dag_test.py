"""``dag.test()`` in a process of its own, and what Airflow's database says afterwards."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))  # also run as a program
from own_local_ray import own_local_ray

DAGS = Path(__file__).parent / "dags"

_TIMEOUT_S = 1_000


def connection(**extra: object) -> str:
    """A connection for an environment variable; Ray is small."""
    small = {"num_cpus": 1, "object_store_memory_mb": 300}
    return json.dumps({"conn_type": "ray_workflow", "extra": small | extra})


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a DAG run ended.

    :ivar states: by task id, with the map index behind a dot.
    :ivar tries: the number of the last try, likewise.
    :ivar xcoms: by task id and key, likewise.
    """

    run_id: str
    states: dict[str, str]
    tries: dict[str, int]
    xcoms: dict[tuple[str, str], Any]
    log: str


def test_dag(home: Path, dag_file: Path, environment: dict[str, str], **conf: Any) -> Outcome:
    """Run the DAG that has the name of its file.

    :param conf: of the DAG run.
    """
    log = home / f"{dag_file.stem}.log"
    with own_local_ray() as local_ray, log.open("w") as output:
        ended = subprocess.run(
            [sys.executable, __file__, str(dag_file), json.dumps(conf)],
            env=os.environ | local_ray.environment | environment,
            check=False,
            timeout=_TIMEOUT_S,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if ended.returncode:
        raise RuntimeError(log.read_text())
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        tis = database.execute(
            "select run_id, task_id, map_index, state, try_number from task_instance "
            "where dag_id = ?",
            [dag_file.stem],
        ).fetchall()
        xcoms = database.execute(
            # The column is numeric for SQLite: it makes a number of a text that is one.
            "select task_id, map_index, key, cast(value as text) from xcom where dag_id = ?",
            [dag_file.stem],
        ).fetchall()
    return Outcome(
        run_id=tis[0][0],
        states={_name(task, index): state for _, task, index, state, _ in tis},
        tries={_name(task, index): number for _, task, index, _, number in tis},
        xcoms={(_name(task, index), key): json.loads(value) for task, index, key, value in xcoms},
        log=log.read_text(),
    )


test_dag.__test__ = False  # type: ignore[attr-defined]


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}.{map_index}"


def main(dag_file: Path, conf: dict[str, Any]) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    bag = DagBag(dag_folder=str(dag_file))
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))
    # As Airflow's task runner does, and `dag.test()` does not.
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    bag.dags[dag_file.stem].test(run_conf=conf)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
