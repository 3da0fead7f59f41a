"""The rows that a stream's events say, as columns: what Tiled is expected to hold.

Rows gather in the order of the log; every few thousand become Arrow arrays, and no Python object of them stays.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from .typed import STAMP, TypedEvents

BLOCK_ROWS = 4_096  # what is in the processor's cache is gathered twice as fast
_PLAIN = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_null)

Chunk: TypeAlias = "pa.Array[Any] | list[Any]"
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Column:
    """The values of one column, one a row, null where an event has none.

    A chunk is an Arrow array where its values are of one plain kind (lists of them included); else a list.
    """

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.rows = 0

    def add(self, values: Chunk) -> None:
        """Append values."""
        self.chunks.append(values)
        self.rows += len(values)

    def pad(self, rows: int) -> None:
        """Append nulls up to a number of rows."""
        if rows > self.rows:
            self.add(pa.nulls(rows - self.rows))

    def __getitem__(self, row: int) -> Any:
        for chunk in self.chunks:
            if row < len(chunk):
                return chunk[row].as_py() if isinstance(chunk, pa.Array) else chunk[row]
            row -= len(chunk)
        raise IndexError(row)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(chunk.to_pylist() if isinstance(chunk, pa.Array) else chunk for chunk in self.chunks)

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value."""
        return all(map(_is_empty, self.chunks))

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return sum(chunk.nbytes if isinstance(chunk, pa.Array) else sum(map(_nbytes, chunk)) for chunk in self.chunks)


def _nbytes(value: Any) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else 64


def _is_empty(chunk: Chunk) -> bool:
    if isinstance(chunk, pa.Array):
        return bool(chunk.null_count == len(chunk))
    return all(value is None for value in chunk)


def chunk_of(values: list[Any]) -> Chunk:
    """Return the values as an Arrow array, if Arrow would change none of them."""
    try:
        made = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        return values
    inner = innermost(made.type)
    if pa.types.is_floating(inner) and any(map(_has_integer, values)):
        return values  # in a column of text, 5 is not 5.0
    return made if any(is_kind(inner) for is_kind in _PLAIN) else values


def _has_integer(value: Any) -> bool:
    return any(map(_has_integer, value)) if isinstance(value, list | tuple) else isinstance(value, int)


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of what lists hold, however deep."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return kind


class Rows:
    """The rows of one stream.

    Attributes
    ----------
    columns
        By the name that the documents use; those of time stamps begin with `STAMP`.
    quick
        Events of one `TypedEvents` that wait to become columns, appended by whoever decodes them.
    quick_count
        How many rows came that way.
    """

    def __init__(self, external: Iterable[str] = ()) -> None:
        self.external = set(external)
        self.columns: dict[str, Column] = {}
        self.count = 0
        self._seq_nums = array("q")
        self._times = array("d")
        self._marks = array("q")  # hashes of the events' uids
        self._optional = bytearray()  # 1: the document is a dead letter; 2: a value of it is, the row is not
        self._documents: list[Any] = []
        self._flags = bytearray()
        self.quick: list[Any] = []
        self.quick_count = 0
        self._typed: TypedEvents | None = None
        self._kept: tuple[Bools, Bools, Bools] | None = None

    def expect(self, typed: TypedEvents) -> None:
        """From now on `quick` holds events of this decoder."""
        self.flush()
        self._typed = typed

    def add(self, event: dict[str, Any], flag: int) -> None:
        """Append an event as a document."""
        if self.quick or len(self._documents) >= BLOCK_ROWS:
            self.flush()
        self._documents.append(event)
        self._flags.append(flag)

    def flush_quick(self) -> None:
        """Turn what waits in `quick` into columns, if it is enough to be worth it."""
        if len(self.quick) >= BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Turn everything that has gathered into columns, in its order: documents never wait behind `quick`."""
        self._kept = None
        if self._documents:
            block, self._documents = self._documents, []
            self._optional += self._flags
            self._flags = bytearray()
            self._add_documents(block)
            self.count += len(block)
        if self.quick and self._typed is not None:
            self._optional += bytes(len(self.quick))
            self._add_typed(self.quick, self._typed)
            self.count += len(self.quick)
            self.quick_count += len(self.quick)
            self.quick.clear()  # others hold the list

    def _add_typed(self, block: list[Any], typed: TypedEvents) -> None:
        try:
            columns = typed.columns(block)
        except (pa.ArrowInvalid, OverflowError):
            self._add_documents([typed.plain(event) for event in block])
            return
        self._seq_nums.extend([event.seq_num for event in block])
        self._times.extend([event.time for event in block])
        self._marks.extend([hash(event.uid) for event in block])
        self._add_columns(columns, len(block))

    def _add_documents(self, block: list[dict[str, Any]]) -> None:
        self._seq_nums.extend([event["seq_num"] for event in block])
        self._times.extend([event["time"] for event in block])
        self._marks.extend([hash(event["uid"]) for event in block])
        keys = dict.fromkeys(chain.from_iterable(event["data"] for event in block))
        columns: dict[str, Chunk] = {key: chunk_of([self._value(event, key) for event in block]) for key in keys}
        stamped = dict.fromkeys(chain.from_iterable(event["timestamps"] for event in block))
        for key in stamped:
            stamps = [self._stamp(event, key) for event in block]
            if key not in self.external or any(stamp is not None for stamp in stamps):
                columns[STAMP + key] = chunk_of(stamps)
        self._add_columns(columns, len(block))

    def _value(self, event: dict[str, Any], key: str) -> Any:
        """Return the value, unless it only names a datum."""
        return event["data"].get(key) if self._is_loaded(event, key) else None

    def _stamp(self, event: dict[str, Any], key: str) -> Any:
        """Return the timestamp; of files there are none in tables."""
        is_file = key in self.external and not self._is_loaded(event, key)
        return None if is_file else event["timestamps"].get(key)

    def _is_loaded(self, event: dict[str, Any], key: str) -> bool:
        return key not in self.external or bool(event["filled"].get(key))

    def _add_columns(self, columns: dict[str, Any], rows: int) -> None:
        for name, values in columns.items():
            column = self.columns.setdefault(name, Column())
            column.pad(self.count)
            column.add(values)
        for column in self.columns.values():
            column.pad(self.count + rows)

    # ------------------------------------------------------------ afterwards

    @property
    def heads(self) -> "dict[str, pa.Array[Any]]":
        """`seq_num` and `time` of each row."""
        return {"seq_num": pa.array(np.array(self._seq_nums)), "time": pa.array(np.array(self._times))}

    @property
    def marks(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A hash of each row's `seq_num` and uid: rows with the same are one event, delivered again."""
        uids, numbers = np.array(self._marks, np.int64), np.array(self._seq_nums, np.int64)
        return uids ^ (numbers * np.int64(-7046029254386353131))

    def kept(self) -> tuple[Bools, Bools, Bools]:
        """Return which rows count (not those that only repeat another), which of them are dead letters, and of
        which a value is a dead letter.
        """
        if self._kept is None:
            self._kept = self._judged()
        return self._kept

    def _judged(self) -> tuple[Bools, Bools, Bools]:
        flags = np.frombuffer(bytes(self._optional), np.uint8)
        arranged = np.sort(self.marks)
        if not (arranged[1:] == arranged[:-1]).any():
            return np.ones(len(flags), np.bool_), flags == 1, flags == 2
        # Of several deliveries the first counts; but one that must be in Tiled before one that is a dead letter.
        order = np.lexsort((np.arange(len(flags)), flags == 1))
        _, first = np.unique(self.marks[order], return_index=True)
        kept = np.zeros(len(flags), np.bool_)
        kept[order[first]] = True
        return kept, flags == 1, flags == 2

    @property
    def nbytes(self) -> int:
        """About how much memory they take."""
        return 25 * self.count + sum(column.nbytes for column in self.columns.values())
