"""Retries of a task's exceptions: what makes no sense is refused where it is written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_rayworkflow.workflow.model.retry import Retry


@pytest.mark.parametrize("factor", [math.nan, math.inf, True, "2", 0.5, 10**400], ids=repr)
def test_a_factor_that_gives_no_wait_is_refused(factor: Any):
    with pytest.raises(ValueError, match="wait_factor must be a number from 1 to"):
        Retry(attempts=2, wait_factor=factor)


@pytest.mark.parametrize("factor", [1, 1.0, 2.5])
def test_waits_grow_by_the_factor(factor: Any):
    options = Retry(attempts=3, wait_initial=10, wait_factor=factor).to_options()
    assert options.wait_s(2, 1.0) == min(60.0, 10 * factor)
