"""What rows weigh once they are laid out, and how much of them is laid out at once.

Messages are counted by their bytes in Kafka, but what is built of them need not be as small: every row of an array has
the shape and the type of the widest one, every row of a table all its columns. So nothing here is a whole batch: rows
are laid out, and sent, so many at a time. What a document only declares is never believed beyond what its values prove.
"""

from collections.abc import Iterator

REQUEST_NBYTES_MAX = 16_000_000  # of what is laid out for one request, unless a single row weighs more
ROW_NBYTES_MAX = 64_000_000  # of a single row: as much as a message
# A longer row makes all others as long. It may make them so much longer than they began, or as long as what is small
# anyway: 50 000 rows of that are 400 MB on the wire (on disk much less: zarr is compressed).
PADDING_MAX = 64
SMALL_ROW_NBYTES = 8_192
VALUE_NBYTES_SMALL = 2**20  # numpy gives every text of a value the length of the longest: so much is always bearable
ITEM_NBYTES_MAX = 2**16  # of an element, as a descriptor declares it
CELL_NBYTES = 8  # of a table: a number, or the offset of a text or a list; also where the event has no value
DIMENSIONS_MAX = 31  # of a row; numpy had 32 before its second version, and the rows are one


def spans(rows: int, row_nbytes: int, nbytes_max: int = REQUEST_NBYTES_MAX) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the rows that are laid out together."""
    step = rows_at_once(row_nbytes, nbytes_max)
    yield from ((begin, min(begin + step, rows)) for begin in range(0, rows, step))


def rows_at_once(row_nbytes: int, nbytes_max: int = REQUEST_NBYTES_MAX) -> int:
    """Return how many rows may be laid out together: at least one."""
    return max(1, nbytes_max // max(1, row_nbytes))


def is_padding_bearable(padded: int, proven: int, small: int = SMALL_ROW_NBYTES) -> bool:
    """Whether so many bytes may stand for values that take `proven` bytes by themselves."""
    return padded <= max(small, PADDING_MAX * proven)


def row_limit(*proven: int) -> int:
    """Return what a row of an array may weigh at most, whatever comes, by the rows with which it began."""
    return max(*proven, min(ROW_NBYTES_MAX, max(SMALL_ROW_NBYTES, PADDING_MAX * max(proven))))
