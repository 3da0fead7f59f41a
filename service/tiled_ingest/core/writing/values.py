"""All values of a stream: a batch goes into its arrays and its tables, and counts as written when all have it."""

from collections.abc import Iterator

from tiled_ingest.core.rows.batches import Batch
from tiled_ingest.core.rows.tally import Tally
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.runs.stream import Stream
from tiled_ingest.core.steps import Procedure, Surroundings

from .arrays import Array
from .tables import Table


class Values:
    """Procedures for what a stream holds, in one lane."""

    def __init__(self, around: Surroundings, run: Run, stream: Stream) -> None:
        self._around = around
        self._run = run
        self._stream = stream

    def append(self, batch: Batch) -> Procedure[set[int]]:
        """Bring a batch into every node exactly once.

        Returns, when Tiled has confirmed all, which rows have values that could not be kept: these are missing.

        Raises
        ------
        TiledRejected
            Tiled refuses these rows.
        """
        misfits: set[int] = set()
        for array in self._arrays():
            misfits |= yield from array.append(batch)
        for table in self._tables():
            misfits |= yield from table.append(batch)
        self._stream.confirmed += Tally.of(batch.keys)
        return misfits

    def write_anew(self, upto: int) -> Procedure[set[int]]:
        """Bring all accepted rows before offset `upto` into datasets of our own, each shown at once.

        Returns the offsets of those with a value that could not be kept: it is missing.

        Raises
        ------
        TiledRejected
            Tiled refuses these rows.
        """
        self._stream.recalled()
        misfits: set[int] = set()
        for array in self._arrays():
            misfits |= yield from array.write_anew(upto)
        for table in self._tables():
            misfits |= yield from table.write_anew(upto)
        return misfits

    def audit(self, upto: int) -> Procedure[None]:
        """At stop: every node shows exactly the accepted rows.

        Raises
        ------
        TiledRejected
            Repairs did not help.
        """
        for array in self._arrays():
            yield from array.audit(upto)
        for table in self._tables():
            yield from table.audit(upto)
        self._run.notes.extend(self._notes())

    def _arrays(self) -> list[Array]:
        return [Array(self._around, self._run, self._stream, state) for state in self._stream.arrays.values()]

    def _tables(self) -> list[Table]:
        return [Table(self._around, self._run, self._stream, part) for part in self._stream.parts]

    def _notes(self) -> Iterator[str]:
        """TiledWriter's words about arrays that have nodes of their own, and ours about what became of values."""
        name = self._stream.name
        for key, state in self._stream.arrays.items():
            if not state.rows:
                continue
            yield from state.notes.values()
            if state.ragged:
                yield f"Internal data for '{key}' in stream '{name}' written as ragged array."
            else:
                yield f"Internal array data for '{key}' in stream '{name}' written as zarr."
