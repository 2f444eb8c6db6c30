"""What attackers may be: another user of the machine, a viewer of Airflow's pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from users import ATTACKER, VICTIM, Users, why_not


@pytest.fixture(scope="session")
def why_no_users(tmp_path_factory: pytest.TempPathFactory) -> str:
    return why_not(Users(shared_folder(tmp_path_factory.mktemp("users"))))


@pytest.fixture
def users(tmp_path: Path, why_no_users: str) -> Users:
    if why_no_users:
        pytest.skip(why_no_users)
    users = Users(shared_folder(tmp_path))
    for user in (ATTACKER, VICTIM):
        home = users.tmp / f"home-{user}"
        home.mkdir(mode=0o700)
        (home / "precious").write_text("the only copy")
        for path in (home / "precious", home):
            os.chown(path, user, user)
    return users


def shared_folder(folder: Path) -> Path:
    tmp = folder / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)
    return tmp
