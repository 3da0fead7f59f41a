"""Counting rows so that two sets of them can be compared without holding either."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiled_ingest.core.writes import Keys

Words = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = 2**64 - 1
_BLOCK = 65_536  # rows


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows, and a sum of 64 bits over the hashes of their (`seq_num`, `time`).

    Equal multisets of rows have equal tallies, in whatever order and parts they came; different ones differ
    but for one chance in 2**64. Not meant against an adversary.
    """

    count: int = 0
    digest: int = 0

    @classmethod
    def of(cls, keys: Keys) -> "Tally":
        """Return the tally of rows; about 20 ns a row."""
        digest = 0
        for begin in range(0, len(keys.seq_num), _BLOCK):  # of ten million rows the hashes would take half a gigabyte
            rows = slice(begin, begin + _BLOCK)
            digest += int(_hashes(keys.seq_num[rows], keys.time[rows]).sum(dtype=np.uint64))
        return cls(len(keys.seq_num), digest & _MASK)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, (self.digest + other.digest) & _MASK)

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(self.count - other.count, (self.digest - other.digest) & _MASK)


def _hashes(seq_num: npt.ArrayLike, time: npt.ArrayLike) -> Words:
    numbers = np.ascontiguousarray(seq_num, np.int64).view(np.uint64)
    # Two spellings of zero, and many of NaN: adding 0.0 makes -0.0 into 0.0.
    times = np.ascontiguousarray(time, np.float64) + 0.0
    bits: Words = np.where(np.isnan(times), np.nan, times).view(np.uint64)
    return _mixed(_mixed(numbers + _GOLDEN) ^ bits)


def _mixed(words: Words) -> Words:
    """Return the words well stirred (splitmix64's last steps): sums of them are then as good as random."""
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    stirred: Words = words ^ (words >> np.uint64(31))
    return stirred
