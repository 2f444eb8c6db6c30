"""Every code block on a page is run, or included from a file that a test runs."""

import re
from pathlib import Path

import pytest
from code_blocks import ROOT, RUN, SHOWN, languages, run_blocks

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_are_in_a_language_that_is_run_or_marked_as_output(page):
    directives = re.compile(r"\{(toctree|include|literalinclude|eval-rst|note|warning|tip|image)\}")
    unknown = [
        language
        for language in languages(page)
        if language not in RUN | SHOWN and not directives.match(language)
    ]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_included_programs_are_named_in_a_test(page):
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").glob("**/*.py"))
    included = re.findall(r"\{literalinclude\} (\S+)", page.read_text())
    untested = [file for file in included if Path(file).stem not in tests]
    assert untested == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_run(page):
    for reason in run_blocks(page):
        assert (ROOT / reason).is_file(), f"{reason!r} is not a test that runs the skipped block"
