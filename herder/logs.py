"""Logs of every process of the herd, through structlog: one line an event, to stderr; JSON where it is asked for.

Knows nothing of what is logged, except that a prompt, an answer and a key never may be: they are cut out of every
line, whoever put them there.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

from herder.settings import Settings

# A key in a log is a key that is stolen; a prompt in a log belongs to somebody.
_SECRET = re.compile(r"(hk_|whsec_)[0-9A-Za-z+/=]{6,}")
_PRIVATE = frozenset({"prompt", "messages", "text", "api_key", "secret", "authorization"})
_VALUE_CHARS_MAX = 4_000


def configure(settings: Settings) -> None:
    """Set up structlog and the standard library's logging for this process. May be called again."""
    level = getattr(logging, settings.log_level.upper())
    shared = _shared_processors()
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        # Not the rich traceback: it prints local variables, prompts and keys among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if settings.log_json else []),
                _redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Each of these says at `info` what our own lines say better.
    for name in ("httpx", "httpx2", "httpcore", "uvicorn", "uvicorn.access", "arq.worker", "asyncio"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def get_logger(name: str) -> Any:
    """A bound logger; `name` is the module's, and stands in each line as `logger`."""
    return structlog.get_logger(name)


def _shared_processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _redact(_: Any, __: str, event: Any) -> Any:
    """Cut private fields, anything that looks like an API key or a webhook's secret, and endless values."""
    for name, value in list(event.items()):
        if name in _PRIVATE:
            event[name] = "(not logged)"
        elif isinstance(value, str):
            event[name] = _SECRET.sub(r"\1…", value[:_VALUE_CHARS_MAX])
    return event
