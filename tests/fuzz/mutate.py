"""Mutations of histories: of their order, of documents, of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
import msgspec

Message = bytes
History = list[Message]

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64 - 1, -(2**63), 0.5, math.nan, math.inf, "", "x", "r", "d", "\x00", "\ud800",
    "../..", "a" * 300, b"", b"\xff", [], [[]], [1, "x"], {}, {"r": 1}, {b"nd": True}, {"": {}}, 10**30,
    {b"nd": True, b"type": "<f8", b"kind": b"", b"shape": [2**40], b"data": b"12345678"},
    {b"nd": True, b"type": b"O", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem\n."},
    {b"nd": False, b"type": "<M8[s]", b"data": b"\x00" * 8}, {b"complex": True, b"data": b"1j"},
)  # fmt: skip
KINDS = (
    "start", "stop", "descriptor", "event", "event_page", "datum", "datum_page", "resource", "stream_resource",
    "stream_datum", "bulk_events", "bulk_datum", "bmm", "",
)  # fmt: skip
_DEPTHS = (3, 64, 65, 1_000, 100_000)


def mutated(history: History, chance: Random, rounds: int = 4) -> History:
    """Return another history, a few mutations away."""
    history = list(history)
    for _ in range(chance.randint(1, rounds)):
        chance.choice((_in_order, _in_document, _in_document, _in_document, _in_bytes))(history, chance)
    return history


def _in_order(history: History, chance: Random) -> None:
    if not history:
        return
    where, other = chance.randrange(len(history)), chance.randrange(len(history))
    match chance.randrange(4):
        case 0:
            history.insert(other, history[where])  # delivered twice
        case 1:
            del history[where]
        case 2:
            history[where], history[other] = history[other], history[where]
        case _:
            history[where:] = history[where:][: chance.randint(0, 8)]


def _in_bytes(history: History, chance: Random) -> None:
    if not history:
        return
    where = chance.randrange(len(history))
    value = bytearray(history[where])
    match chance.randrange(4):
        case 0 if value:
            value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        case 1:
            del value[chance.randint(0, len(value)) :]
        case 2:
            at = chance.randint(0, len(value))
            value[at:at] = chance.randbytes(chance.randint(1, 8))
        case _:
            value[:] = value[:8] + bytes([chance.choice((0x91, 0x81, 0xDD, 0xDF))]) * chance.choice(_DEPTHS)
    history[where] = bytes(value)


def _in_document(history: History, chance: Random) -> None:
    if not history:
        return
    where = chance.randrange(len(history))
    try:
        # Not msgpack's own: where bluesky_kafka was imported, it would run the code that a seed holds.
        loaded = msgspec.msgpack.decode(history[where])
        history[where] = _packed(_changed(loaded, chance))
    except (ValueError, TypeError, RecursionError, OverflowError):
        _in_bytes(history, chance)  # it is no document any more


def _packed(value: Any) -> bytes:
    encoded: bytes = msgpack.dumps(value, unicode_errors="surrogatepass", default=str)
    return encoded


def _changed(value: Any, chance: Random) -> Any:
    """Go down into the value by chance, and change something there."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        return _changed_mapping(value, chance)
    if isinstance(value, list) and value and chance.random() < 0.9:
        return _changed_list(value, chance)
    return _other(value, chance)


def _changed_mapping(value: dict[Any, Any], chance: Random) -> dict[Any, Any]:
    key = chance.choice(list(value))
    match chance.randrange(8):
        case 0:
            return {name: item for name, item in value.items() if name != key}
        case 1:
            return {**value, chance.choice(("time", "seq_num", "_x", "X", "a;b", "é" * 40)): value[key]}
        case 2:
            return {**value, chance.choice(list(value)): value[key]}
        case _:
            return {**value, key: _changed(value[key], chance)}


def _changed_list(value: list[Any], chance: Random) -> list[Any]:
    where = chance.randrange(len(value))
    match chance.randrange(8):
        case 0:
            return value[:where]
        case 1:
            return value + value[where:]
        case 2 if isinstance(value[0], str):
            return [chance.choice(KINDS), *value[1:]]
        case _:
            return [*value[:where], _changed(value[where], chance), *value[where + 1 :]]


def _other(value: Any, chance: Random) -> Any:
    if isinstance(value, str) and value and chance.random() < 0.3:
        return value + chance.choice(("\x00", "'", '"; DROP TABLE x --', "<script>", "\u202e", "/", "%s"))
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.5:
        steps: tuple[Callable[[Any], Any], ...] = (lambda n: n + 1, lambda n: -n, lambda n: n * 2.5, str)
        return chance.choice(steps)(value)
    return chance.choice(ODD)
