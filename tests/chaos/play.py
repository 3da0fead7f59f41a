"""Acts are played: faults while runs come, then everything must settle, and every run is compared."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.faults import inject
from tests.chaos.plan import Act, Kind
from tests.chaos.progress import Strike
from tests.chaos.stage import Stage
from tests.rig.reader import compare_frames, compare_run
from tests.system.publishing import Documents, by_run, message
from tests.system.scene import Letter

TRIES = 3  # for a fault that does not count
FAULTS_MIN = 6  # in an act that began, however late it is
BEHIND_S_MAX = 15.0  # so long may documents wait while more faults come
PLANTED_EVERY = 10
# A process that was replaced, or cut off, may end and be started again; anything else that ends it is a defect.
ENDS_EXPECTED = {"KafkaFatal", "KafkaUnavailable", "DeadLetterFailed", "Superseded"}
_ROWS = re.compile(r"(\d+) rows (missing|duplicated|not published)")
_LOOKED_FOR = ("switched", "put_back", "audit_mismatch", "claimed", "ambiguous")


@dataclass
class Result:
    """What became of an act.

    Attributes
    ----------
    differences
        By run: how Tiled differs from what was published.
    rows
        Rows `missing`, `duplicated`, `not published`.
    with_files
        How many of the runs have files of detectors.
    refused
        How many of the runs Tiled refused: their documents must all be dead letters, in their order.
    letters
        Unexpected dead letters by code.
    ends
        Services that ended by themselves, by reason.
    failure
        Why it did not come to its end.
    """

    act: Act
    folder: Path
    strikes: list[Strike] = field(default_factory=list)
    runs: int = 0
    documents: int = 0
    with_files: int = 0
    refused: int = 0
    differences: dict[str, list[str]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    planted_lost: int = 0
    planted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    said: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not (self.failure or self.differences or self.letters or self.planted_lost or self.unexpected_ends)

    @property
    def unexpected_ends(self) -> set[str]:
        return set(self.ends) - ENDS_EXPECTED


def play(act: Act, folder: Path, tell: Callable[[str], None], until_s: float = float("inf")) -> Result:
    """Play one act; its logs stay in the folder unless all went well. After `until_s` few more faults come."""
    result, begun_s = Result(act, folder), time.monotonic()
    try:
        with Stage(act, folder) as stage:
            try:
                _play(stage, result, tell, until_s)
            finally:
                result.strikes = stage.progress.strikes
                result.ends = stage.ends
                result.said = {event: stage.said(event) for event in _LOOKED_FOR}
    except Exception as error:  # noqa: BLE001 - whatever it is, the report says it, and the other acts are played
        result.failure = f"{type(error).__name__}: {error}"
        (folder / "failure.txt").write_text(traceback.format_exc())
    result.seconds = time.monotonic() - begun_s
    if result.passed:
        shutil.rmtree(folder)
    return result


def _play(stage: Stage, result: Result, tell: Callable[[str], None], until_s: float) -> None:
    stage.begin()
    for number, kind in enumerate(stage.act.kinds):
        if number >= FAULTS_MIN and time.monotonic() > until_s:
            break
        _let_happen(stage, kind, tell)
        if number % PLANTED_EVERY == 0:
            stage.plant()
        stage.pause(0, 0.8)
        # Server errors in a row on one table, while others succeed, are its rows' fault by the service's own rule.
        stage.recover(0 if kind is Kind.STATUS_500 else BEHIND_S_MAX)
    stage.settle()
    stage.recover()
    _compare(stage, result)


def _let_happen(stage: Stage, kind: Kind, tell: Callable[[str], None]) -> None:
    for _ in range(TRIES):
        strike = inject(stage, kind)
        stage.tend()
        tell(f"{kind}: {strike.unsettled} unsettled{', void: ' + strike.void if strike.void else ''}")
        if strike.counts:
            return


def _compare(stage: Stage, result: Result) -> None:
    """Read everything with a plain client of Tiled."""
    client, letters, supply = stage.scene.client, stage.scene.letters(), stage.supply
    for traffic in stage.traffic:
        result.documents += len(traffic.documents)
        for uid, documents in by_run(traffic.documents).items():
            result.runs += 1
            if uid in supply.refused:
                found = refusal_differences(client, uid, documents, letters)
            else:
                found = _differences(client, uid, documents, result.act.parts.storage)
                found += compare_frames(client, uid, supply.frames.get(uid, {}))
            if found:
                result.differences[uid] = found
            result.refused += uid in supply.refused
            result.with_files += uid in supply.frames
    for text in (text for found in result.differences.values() for text in found):
        result.rows.update({what: int(count) for count, what in _ROWS.findall(text)})
    of_runs = {letter.value for letter in letters if letter.headers.get("run") in supply.refused}
    result.planted = len(stage.planted)
    result.planted_lost = len(stage.planted - {letter.value for letter in letters})
    result.letters = Counter(letter.code for letter in letters if letter.value not in stage.planted | of_runs)


def _differences(client: Mapping[str, object], uid: str, documents: Documents, storage: str) -> list[str]:
    found = compare_run(client, uid, documents, storage)
    if not found:
        state = client[uid].metadata["tiled_ingest"]["state"]  # type: ignore[attr-defined]
        return [] if state == "complete" else [f"its state is {state!r}"]
    return found


def refusal_differences(
    client: Mapping[str, object], uid: str, documents: Documents, letters: Sequence[Letter]
) -> list[str]:
    """Say what is wrong with a run that Tiled refused: as a letter may come twice, the first one of each counts."""
    wanted = [message(*document) for document in documents]
    held = {int(letter.headers["offset"]): letter.value for letter in letters if letter.headers.get("run") == uid}
    found = [held[offset] for offset in sorted(held)]
    differences = [] if list(held) == sorted(held) else ["its dead letters are out of order"]
    if found != wanted:
        differences.append(f"{len(found)} of its {len(wanted)} documents are dead letters, or others are")
    state = client[uid].metadata["tiled_ingest"]["state"]  # type: ignore[attr-defined]
    return differences if state == "failed" else [*differences, f"its state is {state!r}"]
