"""Where documents are replayed from: files, or parts of topics. Each becomes records with positions.

A record of a file stands in the topic `file:<name>`, which no topic can be called, at the number of its line, or of its
document.
"""

import json
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from tiled_ingest.core.record import Home, Record
from tiled_ingest.kafka.messages import to_record
from tiled_ingest.kafka.topics import Topics
from tiled_ingest.settings import Kafka, revealed
from tiled_ingest.tools.log import messages

FILE = "file:"
ANSWER_S_MAX = 30.0
DOCUMENT_BYTES_MAX = 1_000_000_000  # of one document in a file
_UNREADABLE = (ValueError, OverflowError, RecursionError)  # those of JSON and of Unicode are ValueErrors
_TOPIC = re.compile(r"topic:(?P<topic>[^:]+)(:(?P<partition>\d+)(:(?P<first>\d*)-(?P<next>\d*))?)?")


class WrongSource(ValueError):
    """The text names nothing that can be read; the sentence says why."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file: JSON Lines (of mappings with `name` and `doc`, or of pairs), one JSON array of them, or msgpack."""

    path: Path

    @property
    def home(self) -> Home:
        """What stands for a partition."""
        return Home(FILE + self.path.name, 0)

    def records(self) -> Iterator[Record]:
        """Yield the file's documents; what is none is yielded as it is, to be refused with its place."""
        if self.path.stat().st_size == 0:
            return
        timestamp_ms = int(self.path.stat().st_mtime * 1000)
        for number, value in self._values():
            yield Record(*self.home, number, timestamp_ms, None, value)

    def _values(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            beginning = bytes(whole[:4096]).lstrip()[:1]
        if beginning in {b"{", b"["}:
            return _from_json(self.path, beginning)
        return _from_msgpack(self.path)


def _from_json(path: Path, beginning: bytes) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
        if beginning == b"[" and _pair(first) is None:
            file.seek(0)
            yield from _from_array(file.read())
            return
        file.seek(0)
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _packed(_pair(line), line)


def _from_array(text: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        found = _json(text)
    except _UNREADABLE:
        found = None
    if not isinstance(found, list):
        yield 0, text
        return
    for number, each in enumerate(found):
        yield number, _packed(each, b"what no message can hold")


def _json(text: bytes) -> Any:
    """Return what JSON says; also NaN and Infinity, which bluesky's writers leave as Python spells them."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError):
        return json.loads(text)


def _pair(line: bytes) -> Any:
    """Return what a line holds, if it is a name and a document."""
    try:
        found = _json(line)
    except _UNREADABLE:
        return None
    is_pair = isinstance(found, list) and len(found) == 2 and isinstance(found[0], str)
    return found if is_pair or (isinstance(found, dict) and found.keys() >= {"name", "doc"}) else None


def _packed(found: Any, raw: bytes) -> bytes:
    """Return name and document as the topic's messages have them; `raw` if there are none, or none can hold them."""
    if isinstance(found, dict) and found.keys() >= {"name", "doc"}:
        found = [found["name"], found["doc"]]
    try:
        return raw if found is None else msgspec.msgpack.encode(found)
    except _UNREADABLE:
        return raw


def _from_msgpack(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each object's bytes, without decoding any; what follows one that is cut off cannot be found."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        unpacker = msgpack.Unpacker(file, max_buffer_size=DOCUMENT_BYTES_MAX)
        at = 0
        for number in count():
            try:
                unpacker.skip()
            except (msgpack.OutOfData, msgpack.UnpackException, ValueError):
                if at < len(whole):
                    yield number, bytes(whole[at:])
                return
            yield number, bytes(whole[at : unpacker.tell()])
            at = unpacker.tell()


@dataclass(frozen=True, slots=True)
class TopicSource:
    """A part of a topic: all of it, one partition, or the offsets from `first` to before `next_offset` of one."""

    topic: str
    partition: int | None = None
    first: int = 0
    next_offset: int | None = None

    def records(self, kafka: Kafka, spans: Iterable[tuple[Home, int, int]]) -> Iterator[Record]:
        """Yield the records of these spans.

        Raises
        ------
        IngestError
            Kafka cannot be read.
        """
        for home, start, stop in spans:
            for found in messages(kafka, home, start, stop):
                yield from map(to_record, found)

    def spans(self, kafka: Kafka) -> list[tuple[Home, int, int]]:
        """Return what the topic holds now and is read: partition, first offset, and the one after the last.

        Raises
        ------
        WrongSource
            There is no such topic or partition.
        """
        topics = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)
        homes = topics.homes([self.topic]) if topics.exists(self.topic) else []
        homes = [home for home in homes if self.partition in {None, home.partition}]
        if not homes:
            raise WrongSource(f"there is no topic {self.topic!a} with such a partition")
        lows, highs = topics.lows(homes), topics.highs(homes)
        wanted = self.next_offset
        return [
            (home, max(self.first, lows[home]), highs[home] if wanted is None else min(wanted, highs[home]))
            for home in homes
        ]


Source = FileSource | TopicSource


def source(text: str) -> Source:
    """Return what a text names: a file, or `topic:NAME[:PARTITION[:FIRST-NEXT]]`.

    Raises
    ------
    WrongSource
        There is no such file, and it is no topic; or a part of one that holds nothing.
    """
    if found := _TOPIC.fullmatch(text):
        partition, first, following = found["partition"], found["first"], found["next"]
        if following and int(following) <= int(first or 0):
            raise WrongSource(f"{text!a} has no documents: FIRST-NEXT goes from an offset to before a larger one")
        return TopicSource(
            found["topic"],
            int(partition) if partition else None,
            int(first) if first else 0,
            int(following) if following else None,
        )
    path = Path(text)
    if not path.is_file():
        raise WrongSource(f"{text!a} is no file, and no topic:NAME[:PARTITION[:FIRST-NEXT]]")
    return FileSource(path)
