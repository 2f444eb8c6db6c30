"""Operators that run and manage durable Ray workflows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_provider_rayworkflow.definitions import (
    as_json,
    build_graph,
    check_arguments,
    check_definition,
    load_function,
    name_of,
)
