"""The trace in which a workflow is run, as W3C's ``traceparent``: spans of its tasks join it.

Costs nothing without traces: only a program that traces, or a traceparent, imports OpenTelemetry.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def current_traceparent() -> str:
    """The current span of this process, ``""`` where nothing is recorded."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # One that is not sampled is not passed on: who traces tasks only would lose their spans.
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return ""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


@contextmanager
def joining(traceparent: str) -> Iterator[None]:
    """Spans that are opened meanwhile are of that trace; of none without OpenTelemetry."""
    leave = join(traceparent)
    try:
        yield
    finally:
        leave()


def join(traceparent: str) -> Callable[[], None]:
    """Join that trace for good, or until what this returns is called."""
    try:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return lambda: None
    joined = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    return functools.partial(context.detach, context.attach(joined))
