"""Loggers whose lines a terminal only shows, whatever ids and errors are in them."""

from __future__ import annotations

import logging

from airflow_provider_rayworkflow.workflow.format.shown_text import escaped

_FORMATTER = logging.Formatter()


def get_logger(name: str) -> logging.Logger:
    """As ``logging.getLogger``; what a terminal would obey is escaped in each line."""
    logger = logging.getLogger(name)
    logger.addFilter(escape_record)  # the same one twice counts once
    return logger


def escape_record(record: logging.LogRecord) -> bool:
    """A filter that passes all records."""
    try:
        message = record.getMessage()
    except Exception:  # an argument whose text raises: the handlers tell of it
        return True
    clean = escaped(message)
    if clean != message:
        record.msg, record.args = clean, None
    if record.exc_info and not record.exc_text:  # else the handlers would format it
        record.exc_text = escaped(_FORMATTER.formatException(record.exc_info))
    return True
