"""The versions that are supported: ``make matrix`` runs the quick sessions that this machine has a Python for.

``nox -s tests`` runs all tests on every Python, with the pinned versions; ``nox -s oldest`` with the
oldest versions that pyproject.toml allows, ``nox -s newest`` with the newest that there are.
"""

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
CONSTRAINTS = ["--constraints", "constraints.txt"]

#: Enough to see that a version fits: graphs, values, workflows in the test's process, and Airflow's side of it, on files and S3.
QUICK = [
    "tests/workflow/model/test_codec.py",
    "tests/workflow/model/test_graph.py",
    "tests/workflow/in_process/test_in_process.py",
    "tests/airflow/tries/test_definition.py",
    "tests/airflow/test_hooks.py",
    "tests/airflow/connection/test_object_storage.py",
    "tests/test_readme.py",
]

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["quick-3.12", "quick-3.13", "oldest"]  # the pinned 3.11 is `make test`


@nox.session(python=PYTHONS)
def quick(session: nox.Session) -> None:
    """A few tests that need no servers, on one Python."""
    session.install("--editable", ".", "--group", "dev", *CONSTRAINTS)
    session.run("pytest", "--numprocesses", "2", *(session.posargs or QUICK))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, on one Python."""
    session.install("--editable", ".", "--group", "dev", *CONSTRAINTS)
    session.run("pytest", "--numprocesses", "4", *session.posargs)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The oldest versions of Airflow, Ray and the rest that pyproject.toml allows."""
    session.install("--editable", ".", "--resolution", "lowest-direct")
    session.install("--group", "dev")  # takes what is installed, where it fits
    session.run("uv", "pip", "check", external=True)
    session.run("pytest", "--numprocesses", "2", *(session.posargs or QUICK))


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The newest versions of everything, pins aside."""
    session.install("--upgrade", "--editable", ".", "--group", "dev")
    session.run("pytest", "--numprocesses", "2", *(session.posargs or QUICK))
