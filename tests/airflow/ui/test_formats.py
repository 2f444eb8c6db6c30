"""How values look on the pages."""

import pytest

from airflow_provider_rayworkflow.plugin.web import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1.0, "0.0 s"),
        (5.04, "5.0 s"),
        (184.0, "3 min 04 s"),
        (3720.0, "1 h 02 min"),
    ],
)
def test_durations(seconds, text):
    assert formats.duration(seconds) == text


def test_every_state_has_words():
    from airflow_provider_rayworkflow.plugin.tasks import STATES

    assert tuple(formats.STATE_TITLES) == STATES
