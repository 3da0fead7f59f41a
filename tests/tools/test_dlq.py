"""`dlq list` and `dlq show` on a real topic: each letter once, nothing that steers a terminal, pickles unopened."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import confluent_kafka as ck
import msgpack
import pytest

from tests.rig.fixtures import TopicFactory
from tiled_ingest.demo.broker import Broker
from tiled_ingest.settings import Settings, load
from tiled_ingest.tools.dlq import Choice, Collected, WrongPosition, collect, listed, position, shown
from tiled_ingest.tools.letters import Torn, read_letters

pytestmark = pytest.mark.real

START = msgpack.dumps(("start", {"uid": "run-1", "time": 1.0, "title": "\x1b[2Jcleared"}))
ARRAY = msgpack.dumps(
    ("event", {"data": {"x": {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [200], b"data": bytes(1600)}}})
)
PICKLE = msgpack.dumps(
    ("event", {"data": {"x": {b"nd": True, b"type": "|O8", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem\n"}}})
)


def letter(offset: int, value: bytes | None, code: str, run: str = "", **more: str) -> tuple[Any, Any]:
    said = {
        "reason": "InvalidDocument",
        "code": code,
        "error": f"{code}: \x1b[31mred\x07",
        "topic": "docs",
        "partition": "0",
        "offset": str(offset),
        "timestamp_ms": "1764000000000",
        "run": run,
        "version": "0.1",
        **more,
    }
    return value, [(f"tiled_ingest.{name}", text.encode()) for name, text in said.items()]


LETTERS = [
    letter(3, START, "foreign_run", "run-1"),
    letter(4, b"\x1b]0;title\x07", "undecodable"),
    letter(5, PICKLE, "object_array", "run-1"),
    letter(6, ARRAY, "late", "run-1", reason="TiledRejected"),
    letter(4, b"\x1b]0;title\x07", "undecodable"),  # a crash repeated it
    letter(7, None, "tombstone"),
    (b"of an older or another service", []),
]


@pytest.fixture
def settings(broker: Broker, topic: TopicFactory) -> Settings:
    name = topic("dead")
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers})
    for value, headers in LETTERS:
        producer.produce(name, value, b"session", headers=headers)
    assert producer.flush(20) == 0
    return settings_of(broker, name)


def collected(settings: Settings, keep_max: int = 0, **choice: Any) -> Collected:
    torn: list[Torn] = []
    return collect(read_letters(settings.kafka, torn), torn, Choice(**choice), keep_max)


def settings_of(broker: Broker, dead_letter_topic: str) -> Settings:
    return load(None, named(broker.bootstrap_servers, dead_letter_topic), {})


def named(bootstrap_servers: str, dead_letter_topic: str) -> dict[str, str]:
    return {
        "beamline": "test",
        "kafka.bootstrap_servers": bootstrap_servers,
        "kafka.group_id": "nobody",
        "kafka.topics": "docs",
        "kafka.dead_letter_topic": dead_letter_topic,
        "tiled.uri": "http://127.0.0.1:1",
    }


def test_each_letter_counts_once(settings: Settings) -> None:
    found = collected(settings)
    assert (found.documents, found.repeated) == (6, 1)
    assert found.count("code") == {
        "foreign_run": 1,
        "undecodable": 1,
        "object_array": 1,
        "late": 1,
        "tombstone": 1,
        "": 1,
    }
    assert found.count("reason") == {"InvalidDocument": 4, "TiledRejected": 1, "": 1}
    said = json.loads(listed(found, as_json=True))
    assert said["documents"] == 6
    assert said["groups"][1]["first"] == ["docs", 0, 4]


def test_letters_are_chosen_by_run_code_and_position(settings: Settings) -> None:
    def offsets(**choice: Any) -> list[int]:
        found = collected(settings, 10, **choice)
        return [each.offset for each in found.letters]

    assert offsets(runs=frozenset({"run-1"})) == [3, 5, 6]
    assert offsets(codes=frozenset({"late", "tombstone"})) == [6, 7]
    assert offsets(runs=frozenset({"run-1"}), codes=frozenset({"late"})) == [6]
    assert offsets(positions=frozenset({("docs", 0, 4)})) == [4]


def test_nothing_that_is_printed_steers_a_terminal_or_opens_a_pickle(settings: Settings) -> None:
    found = collected(settings, 10)
    for text in (shown(found, as_json=False), shown(found, as_json=True), listed(found, as_json=False)):
        assert all(character.isprintable() or character == "\n" for character in text)
    whole = {each["offset"]: each for each in json.loads(shown(found, as_json=True))}
    assert whole[3]["document"]["title"] == "\x1b[2Jcleared", "in JSON it is escaped, and whole"
    assert whole[4]["name"] == whole[5]["name"] == "unreadable"
    assert whole[6]["document"]["data"]["x"] == "array of float64, shape [200]"
    assert "pickle" in whole[5]["document"]["why"] or "array" in whole[5]["document"]["why"]


def test_more_than_asked_for_is_said(settings: Settings) -> None:
    found = collected(settings, 2)
    assert "... and 4 more" in shown(found, as_json=False)


def test_a_topic_that_nobody_made_holds_no_letters(broker: Broker) -> None:
    found = collected(settings_of(broker, "absent-dead-letters"))
    assert listed(found, as_json=False) == "dead letters: 0 (by code: none; by reason: none); 0 repetitions"


def test_positions_are_spelled_with_colons() -> None:
    assert position("a.b-c:0:17") == ("a.b-c", 0, 17)
    for wrong in ("", "topic", "topic:1", "topic:x:1", "topic:1:-2", ":1:2"):
        with pytest.raises(WrongPosition):
            position(wrong)


def call(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    values = named(settings.kafka.bootstrap_servers, settings.kafka.dead_letter_topic)
    options = [option for name, value in values.items() for option in ("--set", f"{name}={value}")]
    whole = [sys.executable, "-m", "tiled_ingest.cli", "dlq", *arguments, *options]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)


def test_the_commands(settings: Settings) -> None:
    assert json.loads(call(settings, "list", "--json", "--code", "late").stdout)["documents"] == 1
    said = call(settings, "show", "--position", "docs:0:3")
    assert (said.returncode, said.stderr) == (0, "")
    assert "docs:0:3  InvalidDocument/foreign_run  run run-1" in said.stdout
    wrong = call(settings, "show", "--position", "nonsense")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("tiled-ingest: --position: 'nonsense' is no position")


def test_what_was_asked_for_by_name_and_is_not_there_is_said(settings: Settings) -> None:
    counted = call(settings, "list", "--code", "late", "--code", "laet", "--json")
    assert counted.stderr == "tiled-ingest: no dead letter has 'code laet'\n"
    assert (counted.returncode, json.loads(counted.stdout)["absent"]) == (0, ["code laet"]), "none is a count, too"
    shown_ = call(settings, "show", "--run", "run-1", "--run", "run-2")
    assert shown_.stderr == "tiled-ingest: no dead letter has 'run run-2'\n"
    assert shown_.returncode == 1
    assert "docs:0:3  InvalidDocument/foreign_run" in shown_.stdout


Headers = list[tuple[str, bytes | None]]


def absurd(**more: bytes | None) -> Headers:
    """A letter's headers, some of them absurd."""
    said = {"code": b"late", "topic": b"docs", "partition": b"0", "offset": b"3", "timestamp_ms": b"1764000000000"}
    return [(f"tiled_ingest.{name}", value) for name, value in {**said, **more}.items()]


ABSURD: dict[str, tuple[Headers, str]] = {
    "40 digits": (absurd(offset=b"9" * 40), f"offset makes no sense: '{'9' * 40}'"),
    "19 digits": (absurd(offset=b"9" * 19), f"offset is too large: '{'9' * 19}'"),
    "a year": (absurd(timestamp_ms=b"9" * 18), f"timestamp_ms is too large: '{'9' * 18}'"),
    "negative": (absurd(partition=b"-7"), "partition makes no sense: '-7'"),
    "no UTF-8": (absurd(topic=b"docs\xff\xfe"), "topic makes no sense: 'docs"),
    "control": (absurd(offset=b"\x1b[2J3"), "offset makes no sense: '\\x1b[2J3'"),
    "null": (absurd(partition=None), "partition is empty"),
    "twice": ([*absurd(), ("tiled_ingest.offset", b"4")], "'offset' is said twice: '3', '4'"),
    "nothing": ([], "topic is missing; partition is missing; offset is missing"),
    "another's": ([*absurd(), ("offset", b"4")], ""),
}


@pytest.fixture
def absurd_settings(broker: Broker, topic: TopicFactory) -> Settings:
    name = topic("absurd")
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers})
    for headers, _ in ABSURD.values():
        producer.produce(name, START, b"session", headers=headers)
    assert producer.flush(20) == 0
    return settings_of(broker, name)


@pytest.mark.parametrize("command", ["list", "show"])
def test_headers_that_make_no_sense_are_shown_as_what_they_are(absurd_settings: Settings, command: str) -> None:
    said = call(absurd_settings, command)
    assert (said.returncode, said.stderr) == (0, "")
    assert all(character.isprintable() or character == "\n" for character in said.stdout)
    between = "; " if command == "list" else "\n  header "
    for _, wrong in ABSURD.values():
        assert wrong.replace("; ", between) in said.stdout
    as_json = call(absurd_settings, command, "--json")
    assert as_json.returncode == 0, as_json.stderr
    json.loads(as_json.stdout)
