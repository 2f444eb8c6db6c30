"""The names of the cache's objects say when a result was made and when it expires."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayworkflow.workflow.model.cache_options import shown_age
from airflow_provider_rayworkflow.workflow.storage.cached_keys import (
    CachedFile,
    cache_claim_key,
    parse_cache_claim,
    parse_cached_file,
)
from airflow_provider_rayworkflow.workflow.storage.keys import kind_of

TIMES = st.integers(0, 10**11)


@given(TIMES, TIMES, st.sampled_from(["entry", "value"]))
def test_a_name_is_read_as_it_was_made(made_at, expires_at, kind):
    file = CachedFile(made_at, expires_at, "0a1b", kind, "k" * 64, 5)
    assert parse_cached_file(file.path, 5) == file
    assert kind_of(file.path) == "cache"
    assert parse_cache_claim(file.path) == 0


def test_a_claim_is_no_entry():
    key = cache_claim_key("k", 12)
    assert parse_cache_claim(key) == 12
    assert parse_cached_file(key, 1) is None


@pytest.mark.parametrize(
    "path",
    [
        "v1/cache/k/1-2.entry",
        "v1/cache/k/1-2-.entry",
        "v1/cache/k/a-2-x.entry",
        "v1/cache/k/1-2-x.json",
        "v1/cache/1-2-x.entry",
        "v1/cache/k/more/1-2-x.entry",
        "v1/other/k/1-2-x.entry",
    ],
)
def test_a_foreign_file_is_no_entry(path):
    assert parse_cached_file(path, 1) is None


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (-5, "less than a second"),
        (0.5, "less than a second"),
        (1, "1 second"),
        (119, "1 minute"),
        (7_200, "2 hours"),
        (3 * 86_400 + 5, "3 days"),
    ],
)
def test_an_age_is_shown_in_its_largest_unit(age_s, text):
    assert shown_age(age_s) == text
