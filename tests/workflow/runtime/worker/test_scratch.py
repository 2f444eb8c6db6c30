"""Local folders of attempts: deleted at the end, or by the next attempt when a process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_rayworkflow.workflow.runtime.worker.scratch import Scratch

MAKE_AND_DIE = """
import os, sys
from pathlib import Path
from airflow_provider_rayworkflow.workflow.runtime.worker.scratch import Scratch
(Scratch(Path(sys.argv[1])).new_folder() / "file").write_text("left")
os.kill(os.getpid(), 9)
"""


def test_folders_are_empty_and_apart_and_gone_at_the_end(tmp_path: Path):
    scratch = Scratch(tmp_path)
    one, other = scratch.new_folder(), scratch.new_folder()
    assert one != other
    assert list(one.iterdir()) == []
    assert one.stat().st_mode & 0o777 == 0o700
    (one / "file").write_text("x")
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_that_needs_none_makes_none(tmp_path: Path):
    Scratch(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_by_the_next_one(tmp_path: Path):
    subprocess.run([sys.executable, "-c", MAKE_AND_DIE, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.glob("rayworkflow-*/*/file"))) == 1
    scratch = Scratch(tmp_path)
    scratch.new_folder()
    assert list(tmp_path.glob("rayworkflow-*/*/file")) == []
    scratch.close()


def test_what_a_living_attempt_uses_stays(tmp_path: Path):
    scratch, other = Scratch(tmp_path), Scratch(tmp_path)
    file = scratch.new_folder() / "file"
    file.write_text("used")
    other.new_folder()
    assert file.read_text() == "used"
    scratch.close()
    other.close()


def test_foreign_files_and_links_are_left_alone(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    prefix = f"rayworkflow-{os.getuid()}"
    (tmp_path / f"{prefix}-x.lock").symlink_to(outside / "file")
    (tmp_path / f"{prefix}-y").symlink_to(outside)
    (tmp_path / f"{prefix}-y.lock").touch()
    scratch = Scratch(tmp_path)
    scratch.new_folder()
    assert (outside / "file").read_text() == "kept"
    scratch.close()


def test_an_attempt_that_has_ended_gets_no_folder_any_more(tmp_path: Path):
    scratch = Scratch(tmp_path)
    scratch.close()
    with pytest.raises(RuntimeError, match="has ended"):
        scratch.new_folder()
    assert list(tmp_path.iterdir()) == []
