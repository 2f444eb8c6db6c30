"""A cluster has one manager for each storage: its name says which."""

from __future__ import annotations

import contextvars

from airflow_provider_rayworkflow.workflow.runtime.names import (
    at_location,
    current_location,
    event_path,
    manager_name,
    provider_name,
)


def test_each_storage_has_a_name_of_its_own_without_a_secret_in_it():
    names = {manager_name(uri) for uri in ("/data", "/data2", "s3://user:secret@bucket")}
    assert len(names) == 3
    assert all(name.startswith("WorkflowManagementActor-") for name in names)
    assert "secret" not in "".join(names)
    assert manager_name("/data") in names


def test_the_providers_of_http_events_are_told_apart_as_managers_are():
    names = {provider_name(uri) for uri in ("/data", "s3://user:secret@bucket")}
    paths = {event_path(uri) for uri in ("/data", "s3://user:secret@bucket")}
    assert len(names) == len(paths) == 2
    assert "secret" not in "".join(names | paths)
    assert all(name.startswith("WorkflowHttpEventProvider-") for name in names)
    assert all(path.startswith("/event/") for path in paths)


def test_a_process_knows_the_storage_of_the_task_that_runs_in_it():
    assert current_location() is None
    with at_location("/data"):
        with at_location("/other"):
            assert current_location() == "/other"
        assert current_location() == "/data"
        assert contextvars.copy_context().run(current_location) == "/data"
    assert current_location() is None
