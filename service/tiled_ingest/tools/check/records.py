"""A sample of what the topics hold: whether it can be read, and whether every run stays in one partition.

A run whose documents lie in several partitions has no order, so the service refuses what is not in the partition of
the run's start. Kafka keeps together what has one key.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiled_ingest.core.decoding.decode import Decoder
from tiled_ingest.core.errors import Forbidden, IngestError, InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.runs.documents import access_tags
from tiled_ingest.kafka.log_reader import LogReader
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.settings import Settings, revealed

from . import files
from .findings import ANSWER_S_MAX, Finding, Findings, Seen, counted

RECORDS = 200  # the last of each partition
PARTITIONS_MAX = 50  # of each topic: enough to see how it is published
BYTES_MAX = 4_000_000  # of each partition
LOOK_S_MAX = 30.0  # at all topics

ONE_KEY = "give all documents of a run one key when publishing (the run's uid, or one for the session)"


def look(settings: Settings, policy: Policy, partitions: Mapping[str, int], seen: Seen) -> Findings:
    """Look at the last records of each topic, beside the group: no offset moves. `seen` learns what they name."""
    kafka = settings.kafka
    properties = revealed(kafka.properties)
    asked = Topics(kafka.bootstrap_servers, properties, ANSWER_S_MAX)
    reader = LogReader(kafka.bootstrap_servers, kafka.group_id, properties, ANSWER_S_MAX)
    until_s = time.monotonic() + LOOK_S_MAX
    try:
        for name, number in partitions.items():
            if time.monotonic() > until_s:
                yield Finding(f"records of {name}", "warning", f"not looked at: {LOOK_S_MAX:g} s are over", "ask again")
            else:
                yield _topic(asked, reader, Sample(Decoder(policy), seen), name, number)
    finally:
        reader.close()


@dataclass
class Sample:
    """What a sample shows."""

    decode: Decoder
    seen: Seen
    records: int = 0
    keyless: int = 0
    unreadable: list[str] = field(default_factory=list)  # codes
    homes: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # of runs

    def add(self, record: Record) -> None:
        """Look at one record."""
        self.records += 1
        self.keyless += record.key is None
        try:
            kind, document = self.decode(record)
        except InvalidDocument as error:
            self.unreadable.append(error.code)
            return
        if isinstance(document, dict) and (run := document.get("uid" if kind == "start" else "run_start")):
            self.homes[run].add(record.partition)
        if isinstance(document, dict):
            self._note(kind, document)

    def _note(self, kind: str, document: Mapping[str, Any]) -> None:
        if kind == "start":
            self.seen.tags.update(access_tags(document) or ())
        elif (file := files.named_in(kind, document)) and file not in self.seen.files:
            self.seen.files.append(file)

    @property
    def scattered(self) -> list[str]:
        """Runs that were seen in several partitions."""
        return [run for run, partitions in self.homes.items() if len(partitions) > 1]


def _topic(asked: Topics, reader: LogReader, sample: Sample, name: str, partitions: int) -> Finding:
    title = f"records of {name}"
    try:
        for record in _last(asked, reader, [Home(name, number) for number in range(min(partitions, PARTITIONS_MAX))]):
            sample.add(record)
    except Forbidden as error:
        return Finding(title, "failed", str(error), "let us read the topic")
    except IngestError as error:
        return Finding(title, "warning", f"cannot be read now: {error}", "ask again")
    return _judged(title, sample, partitions)


def _last(asked: Topics, reader: LogReader, homes: list[Home]) -> Iterator[Record]:
    lows, highs = asked.lows(homes), asked.highs(homes)
    for home in homes:
        start = max(lows[home], highs[home] - RECORDS)
        if start < highs[home]:
            yield from reader.read(home, start, highs[home], BYTES_MAX)[0]


def _judged(title: str, sample: Sample, partitions: int) -> Finding:
    if not sample.records:
        return Finding(title, "ok", "none yet")
    seen = f"of the last {sample.records}"
    if sample.unreadable:
        codes = ", ".join(sorted(set(sample.unreadable)))
        hint = "they become dead letters: check kafka.topics, and that documents are published as msgpack"
        return Finding(title, "warning", f"{len(sample.unreadable)} {seen} are no Bluesky documents ({codes})", hint)
    if sample.scattered:
        runs = counted(len(sample.scattered), "run")
        return Finding(title, "warning", f"{runs} {seen} lie in several partitions, {sample.scattered[0]!r}", ONE_KEY)
    if sample.keyless and partitions > 1:
        detail = f"{sample.keyless} {seen} have no key: runs will be scattered over {partitions} partitions"
        return Finding(title, "warning", detail, ONE_KEY)
    keys = "one partition needs no keys" if sample.keyless else "all have a key"
    return Finding(title, "ok", f"{counted(sample.records, 'record')} looked at, {keys}")
