"""What the tests of faults tell; the table of it is printed when all tests are done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from reports import Report


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[Report], None]:
    """Give a run's report to the process that prints the table, perhaps another one."""
    return lambda report: record_property("fault run", report.to_json())
