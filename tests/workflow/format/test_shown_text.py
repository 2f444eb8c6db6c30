"""A text of users stands in logs and documents without what would act there."""

import pytest

from airflow_provider_rayworkflow.workflow.format.shown_text import shown_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é \U0001f600\n\tline", "plain é \U0001f600\n\tline"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;title\x07rest", "rest"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b", "\\x1b"),
        ("a\r\nb\rc", "a\nb\\rc"),
        ("\0\x08\x7f\x9b", "\\x00\\x08\\x7f\\x9b"),
        ("caf\udce9 \ud83d", "caf\\udce9 \\ud83d"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_a_text_that_a_terminal_would_obey_is_left_out_or_escaped(text: str, expected: str):
    assert shown_text(text) == expected


def test_a_long_text_is_cut_and_says_so():
    shown = shown_text("begin " + "x" * 1_000_000 + " end")
    assert shown.startswith("begin ")
    assert "characters are left out]" in shown
    assert shown.endswith(" end")
    assert len(shown) < 70_000
