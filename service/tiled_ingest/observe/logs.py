"""Log lines on standard error: one record, one line, and no secret in it.

structlog's records and those of libraries (standard logging, from WARNING on) go through one handler. To have
librdkafka's own lines there too, pass a `kafka.complaints.Complaints` to its clients as their `logger`.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

_OURS = "tiled_ingest"
_SECRET_CHARS_MIN = 4  # blotting out shorter strings would only make lines unreadable
_MASK = "********"
# C0 and C1 controls (terminal commands, forged lines), line separators, and marks that reorder text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure(
    format: str,  # noqa: A002 - the setting's name
    level: str,
    beamline: str,
    secrets: Collection[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send all logging of the process to standard error, replacing what was set up before.

    Parameters
    ----------
    format
        `json`, or `console` for a person: colours on a terminal, unless `NO_COLOR` is set.
    level
        `debug`, `info`, `warning` or `error`: for our own records; libraries speak from WARNING on.
    beamline
        Stands in every line.
    secrets
        What must never be seen; blotted out in every line.
    stream
        Another place than standard error.
    """
    stream = stream or sys.stderr
    shared = _shared(beamline)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a second `configure` must reach loggers that were used before
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(format, stream),
                redact(secrets),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def report_crashes() -> None:
    """Let an exception that nobody expected end the process with a line of the log, in place of a bare traceback.

    The line can be parsed, as every other, and no secret is in it.
    """

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log = structlog.get_logger(_OURS)
        log.critical("crashed", error=f"{kind.__name__}: {error}", exc_info=(kind, error, trace))

    sys.excepthook = report


def _shared(beamline: str) -> list[Processor]:
    def add_beamline(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["beamline"] = beamline
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        add_beamline,
    ]


def _renderers(format_: str, stream: TextIO) -> list[Processor]:
    if format_ == "json":
        return [structlog.processors.JSONRenderer()]  # escapes whatever is not printable ASCII
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    return [_harmless, structlog.dev.ConsoleRenderer(colors=colors)]


def _harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters: a value from a message must not command the terminal or forge a line."""
    return {
        _escaped(name): _escaped_lines(value) if name == "exception" else _escaped_value(value)
        for name, value in event.items()
    }


def _escaped_value(value: Any) -> Any:
    if isinstance(value, str):
        return _escaped(value)
    return value if value is None or isinstance(value, int | float) else _escaped(repr(value))


def _escaped_lines(text: str) -> str:
    return "\n".join(_escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redact(secrets: Iterable[str]) -> Any:
    """Return a processor that blots the secrets out of a finished line, however the line spells them.

    It works on the finished line because a secret may sit in a value, a key, an exception's text or a `repr`.
    """
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    if not spellings:
        return lambda _logger, _method, line: line
    longest_first = sorted(spellings, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return lambda _logger, _method, line: pattern.sub(_MASK, line)


def _spellings(secret: str) -> set[str]:
    if len(secret) < _SECRET_CHARS_MIN:
        return set()
    once = _spelled(secret)
    return once | {twice for spelling in once for twice in _spelled(spelling)}  # a `repr` in JSON, and the like


def _spelled(text: str) -> set[str]:
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""), _escaped(text)}
