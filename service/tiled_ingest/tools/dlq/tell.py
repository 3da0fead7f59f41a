"""Dead letters as lines, and as plain values for JSON. Nothing of a document reaches the terminal unescaped."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tiled_ingest.tools.decoding import Unreadable, opened
from tiled_ingest.tools.letters import Letter, Torn
from tiled_ingest.tools.rebuild.tell import (
    case_lines,
    cases_json,
    place,
    printable,
    stranger_json,
    stranger_lines,
    verdicts,
)

from .choice import Collected, Group, Position
from .redrive import Redriven

_ELEMENTS_MAX = 100  # of an array that is shown whole
_BYTES_MAX = 200  # of what cannot be decoded
_ERROR_CHARS = 80


# ---------------------------------------------------------------- list


def listed(found: Collected, *, as_json: bool) -> str:
    """Return the counts: by reason, by code, and of each run."""
    if as_json:
        summary = {"documents": found.documents, "repeated": found.repeated}
        counts = {"reasons": found.count("reason"), "codes": found.count("code")}
        groups = [asdict(group) for group in found.groups.values()]
        told = {"odd": list(map(odd_json, found.odd)), "incomplete": list(map(torn_json, found.torn))}
        return _dumped({**summary, **counts, "groups": groups, **told, "absent": found.unmet})
    return "\n".join(map(printable, _listed(found)))


def _listed(found: Collected) -> Iterator[str]:
    groups = sorted(found.groups.values(), key=lambda group: (-group.documents, group.code))
    rows = [("documents", "code", "reason", "run", "first", "last", "last time"), *map(_row, groups)]
    widths = [max(len(row[at]) for row in rows) for at in range(7)]
    for row in rows if groups else ():
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for code in found.count("code"):
        error = next(group.error for group in groups if group.code == code)
        yield f"{code}: {error[:_ERROR_CHARS]}"
    codes = ", ".join(f"{count} {code}" for code, count in found.count("code").items()) or "none"
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.count("reason").items()) or "none"
    yield from (f"headers make no sense: {odd_line(each)}" for each in found.odd)
    yield from map(torn_line, found.torn)
    rest = f"{found.repeated} repetitions" + (f"; {len(found.torn)} incomplete" if found.torn else "")
    yield f"dead letters: {found.documents} (by code: {codes}; by reason: {reasons}); {rest}"


def _row(group: Group) -> tuple[str, ...]:
    run = group.run or "-"
    return (
        str(group.documents),
        group.code,
        group.reason,
        run,
        _place(group.first),
        _place(group.last),
        _time(group.last_ms),
    )


# ---------------------------------------------------------------- show


def shown(found: Collected, *, as_json: bool) -> str:
    """Return the letters that were kept, with what they hold."""
    if as_json:
        return _dumped([*map(_whole, found.letters), *map(torn_json, found.torn)])
    blocks = ["\n".join(map(printable, _lines(letter))) for letter in found.letters]
    left = found.documents - len(found.letters)
    more = [f"... and {left} more (--limit)"] if left else []
    torn = [printable(torn_line(each)) for each in found.torn]
    return "\n\n".join([*blocks, *more, *torn]) or "no dead letters"


def _lines(letter: Letter) -> Iterator[str]:
    when, run = _time(letter.timestamp_ms), letter.run or "-"
    parts = f"  in {letter.parts} parts" if letter.parts > 1 else ""
    yield f"{_place(letter.position)}  {letter.reason}/{letter.code}  run {run}  {when}{parts}"
    yield f"  {letter.error}"
    yield from (f"  header {each}" for each in letter.wrong)
    name, document = _document(letter)
    yield f"  {name}: {json.dumps(document)}"


def _whole(letter: Letter) -> dict[str, Any]:
    fields = asdict(letter)
    name, document = _document(letter)
    fields |= {"key": None if letter.key is None else ascii(letter.key)[2:-1], "bytes": len(letter.value or b"")}
    del fields["value"]
    return {**fields, "name": name, "document": document}


def _document(letter: Letter) -> tuple[str, Any]:
    """Return the kind and the document as JSON holds it; of what cannot be decoded, why and its first bytes."""
    try:
        name, document = opened(letter.value)
    except Unreadable as error:
        beginning = ascii((letter.value or b"")[:_BYTES_MAX])
        return "unreadable", {"why": str(error), "bytes": len(letter.value or b""), "beginning": beginning}
    return name, readable(document)


def readable(value: Any) -> Any:
    """Return a value as JSON holds it: long arrays by their type and shape only, NaN and bytes as text."""
    if isinstance(value, Mapping):
        return {str(key): readable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        named = f"array of {value.dtype.name}, shape {list(value.shape)}"
        return named if value.size > _ELEMENTS_MAX else readable(value.tolist())
    if isinstance(value, list | tuple):
        items = [readable(item) for item in value[:_ELEMENTS_MAX]]
        return items if len(value) <= _ELEMENTS_MAX else [*items, f"... {len(value)} in all"]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else ascii(value)


# ---------------------------------------------------------------- words


def _place(position: Position) -> str:
    return place(position) if position[2] >= 0 else "unknown"


def _time(timestamp_ms: int) -> str:
    if timestamp_ms < 0:
        return "-"
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2)


def odd_line(letter: Letter) -> str:
    """Return a line about a letter whose headers make no sense."""
    where = f"letter {letter.letter_partition}:{letter.letter_offset}"
    return f"{where}  {letter.reason}/{letter.code}  run {letter.run or '-'}: {'; '.join(letter.wrong)}"


def odd_json(letter: Letter) -> dict[str, Any]:
    """Return what is known of a letter whose headers make no sense."""
    return {name: value for name, value in asdict(letter).items() if name not in {"key", "value"}}


def torn_line(torn: Torn) -> str:
    """Return a line about a letter that is not whole."""
    letter = torn.letter
    where = f"{_place(letter.position)}  {letter.reason}/{letter.code}  run {letter.run or '-'}"
    return f"incomplete: {where}: {torn.why} (from {letter.letter_offset} of partition {letter.letter_partition})"


def torn_json(torn: Torn) -> dict[str, Any]:
    """Return what is known of a letter that is not whole."""
    fields = {name: value for name, value in asdict(torn.letter).items() if name not in {"key", "value"}}
    return {**fields, "parts": torn.parts, "parts_there": torn.there, "incomplete": torn.why}


# ---------------------------------------------------------------- redrive


def redriven(done: Redriven, *, as_json: bool) -> str:
    """Return what is to be done with each run, and what became of it."""
    if as_json:
        said = {"runs": cases_json(done), "without_run": dict(done.without_run), "nameless": done.nameless}
        told = {"strangers": list(map(stranger_json, done.strangers)), "odd": list(map(odd_json, done.nameless_told))}
        return _dumped({**said, **told, "incomplete": list(map(torn_json, done.torn)), "absent": done.unmet})
    return "\n".join(_redriven(done))


def _redriven(done: Redriven) -> Iterator[str]:
    yield from case_lines(done)
    for code, number in done.without_run.items():
        yield f"leave    {number} {printable(code)}: of no run that is known"
    yield from stranger_lines(done.strangers, sum(done.without_run.values()))
    if done.nameless:
        yield f"leave    {done.nameless} letters that do not say where their documents stood"
    yield from (f"leave    {printable(odd_line(each))}" for each in done.nameless_told)
    yield from (f"leave    {printable(torn_line(each))}" for each in done.torn)
    yield from (f"absent   {printable(each)}: no dead letter" for each in done.unmet)
    yield f"runs: {verdicts(done.cases)}"
