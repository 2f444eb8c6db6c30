"""A cache that is bounded in bytes."""

from airflow_provider_rayworkflow.workflow.storage.bounded_cache import BoundedCache


def test_a_value_that_is_larger_than_the_cache_is_not_kept():
    cache: BoundedCache[str, str] = BoundedCache(max_bytes=10, size_of=lambda _, value: len(value))
    cache["small"] = "12345"
    cache["large"] = "x" * 11
    assert (cache.get("small"), cache.get("large")) == ("12345", None)
    cache["other"] = "123456"
    assert (cache.get("small"), cache.get("other")) == (None, "123456")
