"""The tutorial, followed to the letter in an empty folder.

All that is not literal: the environment `venv` is there before the first command with the wheel of this
checkout in it, so that `pip install` finds what it wants. And the local Ray is one of the test's own.
"""

import os
import subprocess

import pytest
from commands import ROOT, install
from markdown_it import MarkdownIt
from own_local_ray import own_local_ray

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
]

MARK = "==== next block ===="


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    """Language and content of each block of the page."""
    tokens = MarkdownIt().parse((ROOT / "docs" / "tutorial.md").read_text())
    return [(token.info, token.content) for token in tokens if token.type == "fence"]


@pytest.fixture(scope="module")
def printed(blocks, wheel, tmp_path_factory) -> list[str]:
    """What each bash block prints, its log included."""
    folder = tmp_path_factory.mktemp("tutorial")
    install(wheel, folder / "venv")
    script = []
    for language, content in blocks:
        if language == "python":
            # The first line says where it is saved; the folder is made by a block before.
            path = content.splitlines()[0].removeprefix("# ")
            script.append(f"cat >{path} <<'END_OF_FILE'\n{content}END_OF_FILE")
        elif language == "bash":
            script.append(f"echo '{MARK}'\n{content}")
    keep = ("HOME", "PATH", "LANG", "TMPDIR", "PIP_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if name.startswith(keep)}
    with own_local_ray() as local_ray:
        done = subprocess.run(
            ["bash", "-euo", "pipefail"],
            input="\n".join(script),
            cwd=folder,
            env=environment | local_ray.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=840,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    return done.stdout.split(f"{MARK}\n")[1:]


def test_what_the_page_shows_is_what_is_printed(blocks, printed):
    shown, bash = [], -1
    for language, content in blocks:
        if language == "bash":
            bash += 1
        elif language == "text":
            shown += [(bash, line) for line in content.splitlines()]
    assert len(shown) == 11
    missing = [line for bash, line in shown if " ".join(line.split()) not in plain(printed[bash])]
    assert missing == [], printed


def test_the_page_is_short_enough_for_ten_minutes(blocks):
    commands = [
        line for language, text in blocks if language == "bash" for line in text.splitlines()
    ]
    assert len(commands) <= 20


def plain(output: str) -> str:
    return " ".join(output.split())
