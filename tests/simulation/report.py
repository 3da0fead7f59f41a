"""The simulation's report: how much was played, each transition by each fault, the wrong engines that it catches."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .coverage import IMPOSSIBLE, Transition, possible
from .faults import Fault
from .variants import VARIANTS

Json = Mapping[str, Any]
SEEN_CHARS_MAX = 140

INTRODUCTION = """# The simulation

`tests/simulation/` drives the real loop (`ingestor.py`) and its engine against models of Kafka and Tiled that have all
their measured vices, in seeded histories without real time or sockets. The oracle knows only what was published, and
what the models hold. Topics that are deleted and made again, and partitions that are added, are not modelled: they are
tried on a real broker (`tests/kafka/test_source.py`, `tests/system/test_topics.py`).

This page is written by commands; nothing in it is typed in:

```sh
make simulate                                                      # 100 000 histories, the wrong engines, this page
python -m tests.simulation.campaign --first 5000 --histories 1000  # some of it
python -m tests.simulation.campaign --variants 500                 # the wrong engines
python -m tests.simulation.campaign --report docs/simulation.md    # this page, of what there is
```

What was played is kept in `build/`; with the page its numbers are written to `docs/simulation.json`, and count as
played as long as the code of loop, core and models is the same.
"""


def write_report(path: Path, portions: Sequence[Json], variants: Json | None) -> None:
    """Write the page."""
    parts = [INTRODUCTION, *_played(portions), *_cells(portions), *(_variants(variants) if variants else ())]
    path.write_text("\n".join(parts).rstrip() + "\n")


def _total(portions: Iterable[Json], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for portion in portions:
        total.update(portion[name])
    return total


def _played(portions: Sequence[Json]) -> Iterator[str]:
    histories, steps = (sum(portion[name] for portion in portions) for name in ("count", "steps"))
    least = min(portion["steps_min"] for portion in portions)
    seeds = f"{portions[0]['first']} to {max(each['first'] + each['count'] for each in portions) - 1}"
    wrong = {seed: why for portion in portions for seed, why in portion["violations"].items()}
    rate = histories / sum(portion["cpu_s"] for portion in portions)
    kinds = [
        ", ".join(f"{number} {word} {name}" for name, number in sorted(_total(portions, names).items()))
        for word, names in (("on", "storages"), ("of", "protocols"))
    ]
    residual = sum(portion["residual"] for portion in portions)
    yield "## What was played\n"
    yield f"- {histories} histories (seeds {seeds}; {'; '.join(kinds)})."
    yield f"- {steps} steps of engines; the shortest history has {least}."
    yield f"- {rate:.1f} histories per second of one process's CPU."
    yield f"- Violations: {len(wrong)}."
    yield from (f"  - seed {seed}: {why}" for seed, why in sorted(wrong.items())[:20])
    yield f"- Histories that met a risk that [how it works](how-it-works.md) documents: {residual}.\n"


def _cells(portions: Sequence[Json]) -> Iterator[str]:
    cells, transitions = _total(portions, "cells"), _total(portions, "transitions")
    histories_hit = _total(portions, "histories_hit")
    faults = list(Fault)
    yield "## Transitions by faults\n"
    yield "In how many histories a run made the transition after the fault had struck (whatever else struck besides).\n"
    for number, fault in enumerate(faults, 1):
        yield f"{number}. `{fault}`: struck in {histories_hit[str(fault)]} histories"
    yield "\n| State | meets | in all | " + " | ".join(str(number) for number in range(1, len(faults) + 1)) + " |"
    yield "|---|---|--:|" + "--:|" * len(faults)
    for state, trigger in possible():
        counts = [str(cells[f"{state} {trigger} {fault}"]) for fault in faults]
        yield f"| {state} | {trigger} | {transitions[f'{state} {trigger}']} | " + " | ".join(counts) + " |"
    empty = [f"{s} {t} {f}" for s, t in possible() for f in faults if not cells[f"{s} {t} {f}"]]
    yield f"\nEmpty cells: {len(empty)} of {len(possible()) * len(faults)}." + (
        "".join(f"\n- {cell}" for cell in empty)
    )
    yield "\nThe automaton has these transitions, but no history can make them:\n"
    yield from _reasons(IMPOSSIBLE)
    yield ""


def _reasons(transitions: Mapping[Transition, str]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for (state, trigger), why in transitions.items():
        reasons.setdefault(why, []).append(f"{state} {trigger}")
    yield from (f"- {', '.join(names)}: {why}." for why, names in reasons.items())


def _sentence(violation: str) -> str:
    """Return a violation so that it fits into a table."""
    text = " ".join(violation.split()).replace("|", "/")
    return text if len(text) <= SEEN_CHARS_MAX else text[: SEEN_CHARS_MAX - 3] + "..."


def _variants(variants: Json) -> Iterator[str]:
    yield "## Wrong engines, and wrong loops\n"
    yield f"Each is wrong on purpose, in one way; {variants['most']} histories were the most that it was given."
    yield "What is wrong only where runs fail is given histories in which many do (`meets`).\n"
    yield "| Which | what it does | caught in history | what was seen |"
    yield "|---|---|--:|---|"
    docs = {variant.__name__: variant.__doc__ or "" for variant in VARIANTS}
    for name, found in variants["caught"].items():
        says = " ".join(docs[name].split())
        number, seen = found or ("**not caught**", "")
        yield f"| `{name}` | {says} | {number} | {_sentence(seen)} |"
