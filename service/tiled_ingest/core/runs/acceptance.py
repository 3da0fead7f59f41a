"""Which documents of a run count, decided in the order of the log: the same rules live, in a rebuild and in a refill.

A redelivered event has the uid of one that was accepted before: one of them counts. A rewind repeats a `seq_num` with
a new uid: both are data. Since the verdicts depend only on the run's documents in their order, whoever reads the log
again from the run's start comes to the same rows.

Version 1 of these rules (`ResumePoint.rules`).
"""

from array import array
from collections import Counter
from collections.abc import Iterable, KeysView, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.rows.sizes import CELL_NBYTES, ROW_NBYTES_MAX

RULES_VERSION = 1
PAGE_GROWTH_MAX = 2  # a number and its time stamp take ten bytes at least in a page of all keys, and 16 in a table
GAP_MAX = 1_000  # missing seq_nums that are bridged with empty slots: 8 bytes each, 8 kB for one hostile event

OTHER_NBYTES = 300  # of a `seq_num` that does not count up: its entry, and a set with a mark or two


Gaps = list[tuple[int, int]]  # first and last number of each, in order


class Seen:
    """The uids accepted under each `seq_num` of one stream: 8 bytes an event while they count up, as they do.

    `distinct` counts the different `seq_num`s.
    """

    def __init__(self) -> None:
        self._slots = array("q")  # hash of the uid at [seq_num - 1]; 0: none
        self._others: dict[int, set[int]] = {}  # rewinds, and whatever does not count up
        self._others_end = -(2**63)  # one past the largest of these
        self.distinct = 0

    def add(self, seq_num: int, uid: str) -> bool:
        """Accept an event; `False` if this uid was accepted under this `seq_num` before."""
        return self._add(seq_num, _mark(uid.encode("utf-8", "surrogatepass")))

    def has(self, seq_num: int, uid: str) -> bool:
        """Whether an event of this uid was accepted under this `seq_num`."""
        mark = _mark(uid.encode("utf-8", "surrogatepass"))
        return mark == self._slot(seq_num) or mark in self._others.get(seq_num, ())

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 8 * len(self._slots) + OTHER_NBYTES * len(self._others)

    def add_all(self, seq_nums: npt.NDArray[np.int64], uids: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Accept events one after the other, as `add` does; return which are none that were accepted before.

        `uids` are in UTF-8.
        """
        marks = list(map(_mark, uids))
        first = int(seq_nums[0])
        follows = first == len(self._slots) + 1 and first >= self._others_end
        if follows and seq_nums.tolist() == list(range(first, first + len(marks))):
            self._slots.extend(marks)
            self.distinct += len(marks)
            return np.ones(len(marks), np.bool_)
        return np.array([self._add(*pair) for pair in zip(seq_nums.tolist(), marks, strict=True)])

    def gaps(self) -> Gaps:
        """The `seq_num`s from 1 to the largest that no event has: its publisher lost them, or they were refused."""
        slots = np.asarray(self._slots, np.int64)
        elsewhere = [number for number in self._others if 0 < number <= len(slots)]
        empty = np.setdiff1d(np.flatnonzero(slots == 0) + 1, elsewhere, assume_unique=True)
        begins = np.diff(empty, prepend=-1) > 1
        firsts, lasts = empty[begins], empty[np.roll(begins, -1)]  # one ends before the next begins
        found = list(zip(firsts.tolist(), lasts.tolist(), strict=True))
        last = len(slots)
        for number in sorted(number for number in self._others if number > last):
            if number > last + 1:
                found.append((last + 1, number - 1))
            last = number
        return found

    def _add(self, seq_num: int, mark: int) -> bool:
        missing = seq_num - 1 - len(self._slots)
        if 0 <= missing <= GAP_MAX:
            self._slots.extend([0] * missing)
            self._slots.append(mark)
            self.distinct += seq_num not in self._others
            return self._is_new_elsewhere(seq_num, mark)
        return self._add_out_of_order(seq_num, mark)

    def _slot(self, seq_num: int) -> int:
        return self._slots[seq_num - 1] if 0 < seq_num <= len(self._slots) else 0

    def _is_new_elsewhere(self, seq_num: int, mark: int) -> bool:
        return not (self._others and mark in self._others.get(seq_num, ()))

    def _add_out_of_order(self, seq_num: int, mark: int) -> bool:
        slot = self._slot(seq_num)
        others = self._others.setdefault(seq_num, set())
        if mark == slot or mark in others:
            return False
        self.distinct += not slot and not others
        others.add(mark)
        self._others_end = max(self._others_end, seq_num + 1)
        return True


def _mark(uid: bytes) -> int:
    return hash(uid) or 1  # 0 is an empty slot


class Accepted(NamedTuple):
    """A descriptor that was accepted.

    Attributes
    ----------
    stream
        The name of its stream.
    offset
        Where it stands in the log: one that was refused before may have the same uid.
    content
        Hash of the document as received.
    """

    stream: str
    offset: int
    content: str


class Acceptance:
    """What has been accepted of one run."""

    def __init__(self) -> None:
        self._descriptors: dict[str, Accepted] = {}  # by uid
        self._seen: dict[str, Seen] = {}  # stream name -> events
        self._keys: dict[str, set[str]] = {}  # stream name -> data keys of all its descriptors

    @property
    def descriptors(self) -> KeysView[str]:
        """The uids of the descriptors accepted so far."""
        return self._descriptors.keys()

    def descriptor(self, uid: str) -> Accepted | None:
        """Return what is known of an accepted descriptor."""
        return self._descriptors.get(uid)

    def add_descriptor(self, uid: str, name: str, data_keys: Iterable[str] = (), *, offset: int, content: str) -> None:
        """Accept a descriptor, which stands in the log at `offset` and has the hash `content`."""
        self._descriptors[uid] = Accepted(name, offset, content)
        self._keys.setdefault(name, set()).update(data_keys)
        self._seen.setdefault(name, Seen())

    def stream_of(self, descriptor: str) -> str:
        """Name the stream that an event belongs to.

        Raises
        ------
        InvalidDocument
            `orphan`: the run has no such descriptor (yet).
        """
        try:
            return self._descriptors[descriptor].stream
        except KeyError:
            raise InvalidDocument("orphan", f"no descriptor {descriptor!r} came before this event") from None

    def bears(self, descriptors: Iterable[str], nbytes: int) -> bool:
        """Whether the rows of one document of `nbytes` bytes, which stay together, are bearable as rows of tables.

        `descriptors` are those of its rows. A page need not hold the data keys that its descriptor has.
        """
        rows = Counter(self._descriptors[uid].stream for uid in descriptors if uid in self._descriptors)
        cells = sum(number * (2 + 2 * len(self._keys[name])) for name, number in rows.items())
        return cells * CELL_NBYTES <= max(ROW_NBYTES_MAX, PAGE_GROWTH_MAX * nbytes)

    def add_event(self, stream: str, seq_num: int, uid: str) -> bool:
        """Accept an event; `False` for a repetition."""
        return self._seen[stream].add(seq_num, uid)

    def add_events(self, stream: str, seq_nums: npt.NDArray[np.int64], uids: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Accept events in their order (`uids` in UTF-8); return which are no repetitions."""
        return self._seen[stream].add_all(seq_nums, uids)

    def has_event(self, descriptor: str, seq_num: int, uid: str) -> bool:
        """Whether an event was accepted before; this accepts nothing."""
        accepted = self._descriptors.get(descriptor)
        return accepted is not None and self._seen[accepted.stream].has(seq_num, uid)

    @property
    def nbytes(self) -> int:
        """About what the memory of its events takes."""
        return sum(seen.nbytes for seen in self._seen.values())

    def distinct(self, stream: str) -> int:
        """How many different `seq_num`s the stream has."""
        return self._seen[stream].distinct if stream in self._seen else 0

    def gaps(self, stream: str) -> Gaps:
        """Which `seq_num`s no event of the stream has; none where no event came at all."""
        return self._seen[stream].gaps() if stream in self._seen else []

    def is_of(self, descriptor: str, stream: str) -> bool:
        """Whether the descriptor was accepted, for that stream."""
        accepted = self._descriptors.get(descriptor)
        return accepted is not None and accepted.stream == stream

    def has_all(self, descriptors: Iterable[str]) -> bool:
        """Whether all of these were accepted: the rows of a document count all, or none does."""
        return all(uid in self._descriptors for uid in descriptors)
