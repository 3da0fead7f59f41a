"""Log lines as they leave the process."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from tiled_ingest.observe import logs

SECRET = 'pa"ss\\wörd/1'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("tiled_ingest").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def written(format_: str = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(format_, level, "sim", [SECRET], stream)
    return stream


def test_one_json_line_with_what_an_operator_needs() -> None:
    stream = written()
    log = structlog.get_logger("tiled_ingest.ingestor").bind(topic="t", partition=0, run="uid")
    log.info("flush", offset=5, reason="age")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "flush", "level": "info", "logger": "tiled_ingest.ingestor", "beamline": "sim",
        "topic": "t", "partition": 0, "run": "uid", "offset": 5, "reason": "age",
    }  # fmt: skip


def test_level() -> None:
    stream = written(level="warning")
    log = structlog.get_logger("tiled_ingest")
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_libraries_speak_from_warning_on() -> None:
    stream = written(level="debug")
    logging.getLogger("httpx").info("quiet")
    logging.getLogger("librdkafka").warning("lost %s", "broker")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["logger"], entry["level"]) for entry in entries] == [
        ("librdkafka", "warning"), ("py.warnings", "warning"),
    ]  # fmt: skip
    assert entries[0]["event"] == "lost broker"
    assert entries[0]["beamline"] == "sim"


@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_value_forges_a_line_or_commands_the_terminal(format_: str) -> None:
    stream = written(format_)
    structlog.get_logger("tiled_ingest").info("x\nforged", name="a\x1b[2J\u2028b\u202ec", raw=b"\n", **{"k\n": 1})
    (line,) = stream.getvalue().splitlines()
    assert not {"\x1b", "\u2028", "\u202e"} & set(line)


@pytest.mark.parametrize("format_", ["json", "console"])
def test_secrets_are_blotted_out_wherever_they_are(format_: str) -> None:
    stream = written(format_)
    log = structlog.get_logger("tiled_ingest")
    log.info(SECRET, value=SECRET, deep={"a": [SECRET]}, raw=f"http://h?k={SECRET}")
    logging.getLogger("lib").error("said %r", SECRET)
    try:
        int(SECRET)
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "ValueError" in text
    assert text.count("********") >= 6
    assert "wörd" not in text
    assert "w\\u00f6rd" not in text


def test_console_has_no_colors_away_from_a_terminal() -> None:
    stream = written("console")
    structlog.get_logger("tiled_ingest").warning("plain", offset=5)
    assert "\x1b" not in stream.getvalue()
    assert "offset=5" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_honoured(no_color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    logs.configure("console", "info", "sim", [], stream)
    structlog.get_logger("tiled_ingest").info("hello")
    assert ("\x1b" in stream.getvalue()) is (not no_color)


def test_redact_takes_the_longest_first_and_leaves_tiny_strings() -> None:
    processor = logs.redact(["abcd", "abcdef", "x", ""])
    assert processor(None, "", "abcdef x") == "******** x"


CRASHES = """
import sys
from tiled_ingest.observe import logs
logs.configure("json", "info", "sim", ["hush-hush"])
logs.report_crashes()
def deep():
    raise RuntimeError("the key is hush-hush")
deep()
"""


def test_a_crash_is_one_line_too() -> None:
    """In a process of its own: nobody catches it."""
    ended = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=60, check=False)
    (line,) = ended.stderr.splitlines()
    entry = json.loads(line)
    assert ended.returncode == 1
    assert (entry["event"], entry["level"], entry["error"]) == (
        "crashed",
        "critical",
        "RuntimeError: the key is ********",
    )
    assert "in deep" in entry["exception"]
    assert "hush-hush" not in line
