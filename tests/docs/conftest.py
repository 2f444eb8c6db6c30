"""Airflow's environment, as for the tests of the Airflow side, if those are not run."""

import os
import tempfile

_home = tempfile.TemporaryDirectory(prefix="rayworkflow-docs-")
os.environ.setdefault("AIRFLOW_HOME", _home.name)
