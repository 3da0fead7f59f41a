"""Documents on their way into Tiled again: each position once, each with its run, in a temporary file.

A document says to which run it belongs by the uid of its run, its descriptor or its resource, and these may come in
any order, from several partitions. So all of them are put down first, and the names are followed afterwards.
"""

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tiled_ingest import __version__
from tiled_ingest.core.decoding.decode import Decoder
from tiled_ingest.core.decoding.events import references
from tiled_ingest.core.decoding.whereabouts import whereabouts
from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.policy import Policy
from tiled_ingest.core.record import Home, Record
from tiled_ingest.core.runs.documents import content_hash

UNREADABLE = "unreadable"
TOLD_MAX = 1_000  # documents of no run that are told one by one
_NAMING = frozenset({"descriptor", "resource", "stream_resource"})
_SCHEMA = """
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, topic TEXT, partition INTEGER, offset INTEGER, digest BLOB, timestamp_ms INTEGER,
    key BLOB, value BLOB, kind TEXT, run TEXT, named_by TEXT, named TEXT, own TEXT, why TEXT, place INTEGER,
    UNIQUE (topic, partition, offset, digest));
CREATE TABLE letters (document INTEGER, code TEXT, UNIQUE (document, code));
CREATE TABLE names (sort TEXT, uid TEXT, run TEXT, UNIQUE (sort, uid));
CREATE INDEX of_run ON documents (run, place);
"""
# The start first and the stop last, whenever they came: what came late counts. Between them the order of the log; of
# several partitions, by the broker's time, but never against the order of one partition.
_ORDER = """
WITH timed AS (
    SELECT id, kind, topic, partition, offset,
           MAX(timestamp_ms) OVER (PARTITION BY topic, partition ORDER BY offset, id) AS at
    FROM documents WHERE run = ?),
placed AS (
    SELECT id, ROW_NUMBER() OVER (
        ORDER BY kind <> 'start', kind = 'stop', at, topic, partition, offset, id) - 1 AS number FROM timed)
UPDATE documents SET place = placed.number FROM placed WHERE documents.id = placed.id
"""
_ADD = """
INSERT OR IGNORE INTO documents
    (topic, partition, offset, digest, timestamp_ms, key, value, kind, run, named_by, named, own, why)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_LETTER = """
INSERT OR IGNORE INTO letters
SELECT id, ? FROM documents WHERE topic = ? AND partition = ? AND offset = ? AND digest = ?
"""
_COUNT = """
SELECT COUNT(*), COALESCE(MAX(timestamp_ms), -1), COALESCE(SUM(kind = 'stop'), 0) FROM documents WHERE run = ?
"""
_SPANS = """
SELECT topic, partition, MIN(offset), MAX(offset), MIN(CASE kind WHEN 'start' THEN offset END)
FROM documents WHERE run = ? GROUP BY topic, partition ORDER BY topic, partition
"""
_STRANGERS = """
SELECT topic, partition, offset, kind, own, named_by, named, why, GROUP_CONCAT(code)
FROM documents LEFT JOIN letters ON id = document WHERE run = '' GROUP BY id ORDER BY id LIMIT ?
"""
_STARTS = """
SELECT id, topic, partition, offset, timestamp_ms, key, value FROM documents WHERE run = ? AND kind = 'start'
ORDER BY topic <> ? OR partition <> ? OR offset <> ?, id
"""
_READ = """
SELECT place, topic, partition, offset, timestamp_ms, key, value
FROM documents WHERE run = ? AND place >= ? AND place < ? ORDER BY place
"""


@dataclass(frozen=True, slots=True)
class Spooled:
    """What is there of one run.

    Attributes
    ----------
    documents
        How many.
    codes
        Dead letters among them, by code.
    starts
        By home: the offset of its start document, where one is there.
    ends
        Whether its stop is among them.
    first, last
        By home: the first and the last offset.
    newest_ms
        The largest of the broker's timestamps; -1 where none is known.
    """

    uid: str
    documents: int
    codes: Counter[str]
    starts: dict[Home, int]
    ends: bool
    first: dict[Home, int]
    last: dict[Home, int]
    newest_ms: int


@dataclass(frozen=True, slots=True)
class Stranger:
    """A document of no run that is known.

    Attributes
    ----------
    kind
        `unreadable` if it cannot be decoded; `why` says more.
    own
        Its own uid; empty if it has none, or cannot be read.
    named_by, named
        By what it says which run is its own.
    codes
        Of its dead letters.
    """

    position: tuple[str, int, int]
    kind: str
    own: str
    named_by: str
    named: str
    why: str
    codes: tuple[str, ...]

    @property
    def told(self) -> str:
        """What it is and what is wrong with it, in words."""
        why = self.why or "nothing here says of which run it is"
        return f"{described(self.kind, self.own)}{f' of {self.named_by} {self.named}' if self.named else ''}: {why}"


def described(kind: str, own: str) -> str:
    """Return a document's kind, and its uid if it has one."""
    return f"{kind} {own}" if own else kind


class Spool:
    """Documents by run. Used by one thread.

    Parameters
    ----------
    policy
        The limits under which documents are decoded: those in force now.
    """

    def __init__(self, policy: Policy) -> None:
        self._decode = Decoder(policy)
        self._folder = tempfile.TemporaryDirectory(prefix="tiled-ingest-")
        self._db = sqlite3.connect(Path(self._folder.name) / "documents.db", isolation_level=None)
        self._db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._folder.cleanup()

    # ------------------------------------------------------------ in

    def add(self, record: Record, run: str = "", code: str | None = None) -> bool:
        """Put a document down; `False` for a repetition (the same position and bytes).

        Parameters
        ----------
        run
            Of which run it is, where that is known.
        code
            Of its dead letter, if it is one.
        """
        kind, named_by, named, own, why = self._said(record)
        run = run or (named if named_by == "run" else "")
        digest = hashlib.blake2b(record.value or b"", digest_size=16).digest()
        place = (record.topic, record.partition, record.offset, digest)
        columns = (*place, record.timestamp_ms, record.key, record.value, kind, run, named_by, named, own, why)
        new = self._db.execute(_ADD, columns).rowcount == 1
        if kind in _NAMING and own and run:
            sort = "descriptor" if kind == "descriptor" else "resource"
            self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", (sort, own, run))
        if code is not None:
            self._db.execute(_ADD_LETTER, (code, *place))
        return new

    def _said(self, record: Record) -> tuple[str, str, str, str, str]:
        """Return the document's kind, what it names and its own uid; and why it cannot be read, if that is so."""
        try:
            kind, doc = self._decode(record)
        except InvalidDocument as error:
            by, named, own = whereabouts(record) or ("", "", "")
            return UNREADABLE, by, named, own, str(error)
        return kind, *references(kind, doc), ""

    def follow_names(self) -> None:
        """Find the run of every document that names one only by its descriptor or resource."""
        self._db.execute(
            "UPDATE documents SET run = names.run FROM names "
            "WHERE documents.run = '' AND names.sort = documents.named_by AND names.uid = documents.named"
        )

    def names_of(self, run: str) -> frozenset[tuple[str, str]]:
        """Return by what (`descriptor` or `resource`, and uid) documents may name a run."""
        return frozenset(self._db.execute("SELECT sort, uid FROM names WHERE run = ?", (run,)))

    def drop(self, run: str, code: str) -> None:
        """Forget a run's dead letters of one code: they are documents of another run of its uid."""
        self._db.execute(
            "DELETE FROM documents WHERE run = ? AND id IN (SELECT document FROM letters WHERE code = ?)", (run, code)
        )

    def drop_other_starts(self, run: str, home: Home, offset: int) -> None:
        """Forget each start document that says something else than the run's own, which stands at this offset; or than
        the first one, where that is not there.
        """
        own = None
        for number, *fields in self._db.execute(_STARTS, (run, *home, offset)).fetchall():
            record: Any = Record(*fields)
            start: Any = self._decode(record)[1]
            content = content_hash(start)
            own = own or content
            if content != own:
                self._db.execute("DELETE FROM documents WHERE id = ?", (number,))

    # ------------------------------------------------------------ what there is

    def runs(self) -> list[str]:
        """Return the runs, in the order in which their first document was put down; not those without a name."""
        found = self._db.execute("SELECT run FROM documents WHERE run <> '' GROUP BY run ORDER BY MIN(id)")
        return [run for (run,) in found]

    def letters_without_run(self) -> Counter[str]:
        """Return, by code, the dead letters of which nobody knows the run."""
        asked = "SELECT code, COUNT(*) FROM letters JOIN documents ON id = document WHERE run = '' GROUP BY code"
        return Counter(dict(self._db.execute(asked)))

    def strangers(self) -> int:
        """Return how many documents are of no run that is known, or cannot be read."""
        (number,) = self._db.execute("SELECT COUNT(*) FROM documents WHERE run = ''").fetchone()
        return int(number)

    def strangers_told(self) -> list[Stranger]:
        """Return the first of them, in the order in which they were put down."""
        found = []
        for topic, partition, offset, kind, own, named_by, named, why, codes in self._db.execute(
            _STRANGERS, (TOLD_MAX,)
        ):
            position, of = (topic, partition, offset), tuple(codes.split(",")) if codes is not None else ()
            found.append(Stranger(position, kind, own, named_by, named, why, of))
        return found

    def described(self, run: str, number: int) -> str:
        """Return what a document of a run is: kind, and uid if it has one."""
        asked = "SELECT kind, own FROM documents WHERE run = ? AND place = ?"
        kind, own = self._db.execute(asked, (run, number)).fetchone()
        return described(kind, own)

    def of(self, run: str) -> Spooled:
        """Return what there is of a run."""
        documents, newest, stops = self._db.execute(_COUNT, (run,)).fetchone()
        codes = "SELECT code, COUNT(*) FROM letters JOIN documents ON id = document WHERE run = ? GROUP BY code"
        homes = list(self._db.execute(_SPANS, (run,)))
        return Spooled(
            run,
            documents,
            Counter(dict(self._db.execute(codes, (run,)))),
            {Home(topic, partition): start for topic, partition, _, _, start in homes if start is not None},
            bool(stops),
            {Home(topic, partition): first for topic, partition, first, _, _ in homes},
            {Home(topic, partition): last for topic, partition, _, last, _ in homes},
            newest,
        )

    # ------------------------------------------------------------ out

    def put_in_order(self, run: str) -> str:
        """Number a run's documents from 0; return a digest that names exactly these, and what would be made of them."""
        self._db.execute(_ORDER, (run,))
        digest = hashlib.blake2b(__version__.encode(), digest_size=16)
        asked = "SELECT topic, partition, offset, digest FROM documents WHERE run = ? ORDER BY place"
        for row in self._db.execute(asked, (run,)):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def read(self, run: str, start: int, stop: int, bytes_max: int) -> Iterator[tuple[int, Record]]:
        """Yield number and record of a run's documents from number `start` to before `stop`, at least one, until their
        values hold `bytes_max` bytes.
        """
        held = 0
        for place, *fields in self._db.execute(_READ, (run, start, stop)):
            record: Any = Record(*fields)
            yield place, record
            held += record.nbytes
            if held >= bytes_max:
                return
