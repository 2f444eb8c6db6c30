"""The table of invariants in docs/reliability.md is as the marks of the tests are."""

from pathlib import Path

from invariants import INVARIANTS, NOTES, PAGE, Mark, collect, table, with_table


def test_the_page_lists_the_tests_that_are_marked():
    page = PAGE.read_text()
    assert page == with_table(page, collect()), "Run: python tests/docs/invariants.py"


def test_every_invariant_has_a_test_and_every_mark_an_invariant():
    marked = {mark.number for mark in collect()}
    assert marked <= set(INVARIANTS)
    assert set(INVARIANTS) - marked <= set(NOTES)


def test_marks_are_read_without_importing_the_tests(tmp_path: Path):
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_some.py").write_text(
        "import nothing_of_this_name\n"
        "@pytest.mark.invariant(1, 3)\n"
        "def test_two(): ...\n"
        "@pytest.mark.slow\n"
        "@pytest.mark.parametrize('n', [1])\n"
        "@pytest.mark.invariant(2)\n"
        "async def test_one(n): ...\n"
        "def test_none(): ...\n"
    )
    marks = collect(folder)
    assert marks == [
        Mark(1, "tests/test_some.py", "test_two"),
        Mark(2, "tests/test_some.py", "test_one"),
        Mark(3, "tests/test_some.py", "test_two"),
    ]
    assert "tests/test_some.py: `test_one`" in table(marks)
