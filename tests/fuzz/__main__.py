"""The long run: `python -m tests.fuzz --messages 1000000 [--seed N | --guided]`; prints a table for the docs."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgpack
import msgspec

if TYPE_CHECKING:
    from tests.fuzz.mutate import History
    from tests.fuzz.target import Target

POOL_MAX = 200  # histories that mutations begin with, a quarter of which stays
MEMORY_BYTES_MAX = 2 * 2**30  # address space: a message that makes us ask for more is found by its MemoryError


def main() -> int:
    """Run until so many messages were taken; a finding ends it with its history in a file."""
    arguments = _arguments()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, resource.RLIM_INFINITY))
    if arguments.guided:
        _guided(arguments.messages, arguments.corpus)
    else:
        _at_random(arguments.messages, arguments.seed, arguments.found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--guided", action="store_true", help="let coverage guide it (needs the group `fuzz`)")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"), help="what the guided run keeps")
    parser.add_argument("--found", type=Path, default=Path("build/fuzz-found"), help="where a finding is written")
    return parser.parse_args()


def pack(history: History) -> bytes:
    """A history as one file."""
    packed: bytes = msgpack.dumps(list(history))
    return packed


def unpack(content: bytes) -> History:
    """The history in a file; bytes that are none are one message."""
    try:
        return msgspec.msgpack.decode(content, type=list[bytes])
    except msgspec.DecodeError:
        return [content]


def _at_random(messages: int, seed: int, found: Path) -> None:
    from tests.fuzz.mutate import mutated  # noqa: PLC0415 - a guided run instruments these modules as it imports them
    from tests.fuzz.seeds import histories  # noqa: PLC0415
    from tests.fuzz.target import Target  # noqa: PLC0415

    print(f"seed {seed}", flush=True)
    chance, target, pool = Random(seed), Target(), histories()
    while target.messages < messages:
        history = mutated(chance.choice(pool), chance)
        try:
            target.feed(history)
        except BaseException:
            found.write_bytes(pack(history))
            print(f"seed {seed}: after {target.messages} messages; the history is in {found}", flush=True)
            raise
        if chance.random() < 0.02 and len(history) < 40:
            _keep(history, pool, chance)
    print(report(target))


def _keep(history: History, pool: list[History], chance: Random) -> None:
    """Let later mutations begin with this one; in a full pool it takes another's place."""
    if len(pool) < POOL_MAX:
        pool.append(history)
    else:
        pool[chance.randrange(POOL_MAX // 4, POOL_MAX)] = history


def _guided(messages: int, corpus: Path) -> None:
    import atheris  # noqa: PLC0415

    with atheris.instrument_imports(include=["tiled_ingest.core", "tiled_ingest.tiled.wire"]):
        from tests.fuzz.mutate import mutated  # noqa: PLC0415
        from tests.fuzz.seeds import histories  # noqa: PLC0415
        from tests.fuzz.target import Target  # noqa: PLC0415
    target = Target()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, history in enumerate(histories()):
        (corpus / f"seed-{number}").write_bytes(pack(history))

    def one(content: bytes) -> None:
        target.feed(unpack(content))
        if target.messages >= messages:
            print(report(target), flush=True)
            os._exit(0)  # the fuzzer itself never returns

    def mutator(content: bytes, size_max: int, seed: int) -> bytes:
        history = mutated(unpack(content), Random(seed))
        while len(packed := pack(history)) > size_max:
            history.remove(max(history, key=len))  # cut off, it would be one broken message
        return packed

    options = [sys.argv[0], "-timeout=30", "-rss_limit_mb=0", "-max_len=262144", str(corpus)]
    atheris.Setup(options, one, custom_mutator=mutator)
    atheris.Fuzz()


def report(target: Target) -> str:
    """What the histories reached, as Markdown."""
    decoded, refused = target.decoded.total(), target.refused.total()
    share = 100 * decoded / max(1, decoded + refused)
    lines = [
        f"{target.messages} messages in {target.histories} histories; {share:.1f} % of the messages passed decoding;",
        f"the slowest history took {target.slowest_s:.2f} s.",
        "",
        "| | |",
        "|---|---|",
        *(f"| decoded: {kind} | {count} |" for kind, count in target.decoded.most_common()),
        *(f"| dead letter: {code} | {count} |" for code, count in target.letters.most_common()),
        *(f"| runs that ended {state} | {count} |" for state, count in target.states.most_common()),
        *(f"| struck: {what} | {count} |" for what, count in target.struck.most_common()),
        *_reached(target),
    ]
    return "\n".join(lines)


def _reached(target: Target) -> list[str]:
    """Which states and transitions of a run were reached, and which never."""
    from tiled_ingest.core.runs.states import TABLE, State  # noqa: PLC0415 - as above

    entered = Counter({State.OPENING: target.moves.total() and 1})  # where each run begins
    for (state, trigger), count in target.moves.items():
        if (after := TABLE[state, trigger].state) is not state:
            entered[after] += count
    never = [f"{state} + {trigger}" for state, trigger in TABLE if not target.moves[state, trigger]]
    return [
        *(f"| state {state} | {count} times entered |" for state, count in entered.most_common() if state != "opening"),
        *(f"| transition {state} + {trigger} | {target.moves[state, trigger]} |" for state, trigger in TABLE),
        "",
        f"Of {len(State)} states never reached: {', '.join(s for s in State if not entered[s]) or 'none'}.",
        f"Of {len(TABLE)} transitions never made: {', '.join(never) or 'none'}.",
    ]


if __name__ == "__main__":
    sys.exit(main())
