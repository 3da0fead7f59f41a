"""`TiledWriter`: a drop-in for that of bluesky-tiled-plugins 2.0.12, on the engine of the service."""

import copy
import math
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

from event_model import RunRouter
from tiled.client.utils import TILED_RETRY_TIMEOUT

from tiled_ingest import __version__
from tiled_ingest.core.decoding.patches import Patches
from tiled_ingest.core.policy import Policy
from tiled_ingest.tiled.formats import Formats
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

from .backup import ConditionalBackup, backups
from .driver import Driver
from .ticker import Ticker

BATCH_SIZE = 10_000
MAX_ARRAY_SIZE = 16
AGE_S_MIN = 0.05
NOTES = "_run_normalizer_notes"  # how RunNormalizer hands its notes on, in the stop document

_VALIDATE_DEPRECATED = (
    "The `validate` argument of TiledWriter is deprecated and will be removed in a future release. Please consider "
    "validating the run after it has been written using the `BlueskyRunV3.validate` method on the Tiled client instead."
)


class Own:
    """Stands for the writer's own normalisation, which is that of the service."""


class Unfilled:
    """Fills nothing in: event-model's own Filler refuses events whose datum comes after them."""

    def __init__(self, _registry: Mapping[str, Any], **_options: Any) -> None:
        pass

    def event_page(self, doc: Any) -> Any:
        """Return the events as they are."""
        return doc

    def take(self, _doc: Any) -> None:
        """Take no notice of what could be used to fill events."""

    descriptor = resource = datum_page = stream_resource = stream_datum = take


class TiledWriter:
    """Writes the documents of runs into Tiled: `RE.subscribe(TiledWriter(client))`.

    Each call returns when Tiled has confirmed what is due; rows that do not fill a batch wait until the run's stop
    (or for `age_s_max`). No row is ever written twice. What was buffered is lost when the process dies; nothing is
    flushed at exit. One writer may get several runs at once, from several threads; a run does not survive a fork.

    Parameters
    ----------
    client
        Tiled's client for the node in which runs are created; also one of an application in this process.
    normalizer
        A class like RunNormalizer, put before the writer instead of the writer's own normalisation. `None`:
        documents are taken as they are, and `patches` and `spec_to_mimetype` do not count.
    patches
        By kind of document, a function from a document to the one that is written instead.
    spec_to_mimetype
        Mimetypes for specs of resources, beside those that are known.
    backup_directory
        A folder for the runs that could not be written: `<first block of the uid>.jsonl`, a line a document.
    backup_dictionary
        The same, as lists in a mapping.
    batch_size
        Rows (or frames) that are written together; <= 1 writes each at once.
    max_array_size
        Longer arrays (elements) in events get a node of their own, and those of several dimensions; 0: all arrays;
        -1: none for its length.
    validate
        Deprecated: have Tiled read each run after its stop.
    ignore_errors
        Passed on to that validation.
    age_s_max
        Rows are written at the latest so many seconds after they came, by a thread in the background; an error that it
        meets is raised at the run's next document. `None`: only full batches and the stop write.

    Raises
    ------
    tiled_ingest.core.errors.IngestError
        From a call: see `Driver.take`. With a backup nothing is raised: it is logged, and the whole run is in the
        backup.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the one whose place it takes
        self,
        client: Any,
        *,
        normalizer: type[Any] | None = Own,
        patches: Patches | None = None,
        spec_to_mimetype: Mapping[str, str] | None = None,
        backup_directory: str | None = None,
        backup_dictionary: dict[str, Any] | None = None,
        batch_size: int = BATCH_SIZE,
        max_array_size: int = MAX_ARRAY_SIZE,
        validate: bool | None = None,
        ignore_errors: list[str] | None = None,
        age_s_max: float | None = None,
    ) -> None:
        self.client = client.include_data_sources()
        self.patches = patches or {}
        self.spec_to_mimetype = spec_to_mimetype or {}
        self.backup_directory = backup_directory
        self.backup_dictionary = backup_dictionary
        self.ignore_errors = ignore_errors or []
        if validate:
            warnings.warn(_VALIDATE_DEPRECATED, DeprecationWarning, stacklevel=2)
        self._validate = bool(validate)
        self._normalizer = _normalizer(normalizer)
        self._age_s_max = age_s_max
        patches = self.patches if self._normalizer is Own else {}
        backed_up = bool(backup_directory) or backup_dictionary is not None
        policy = _policy(batch_size, max_array_size, age_s_max)
        self._policy = replace(policy, patches=patches, backed_up=backed_up)
        self._begin()

    @classmethod
    def from_uri(cls, uri: str, **kwargs: Any) -> Self:
        """Make a writer for the server or node at `uri`; what is no argument of ours goes to Tiled's `from_uri`."""
        from tiled.client import from_uri  # noqa: PLC0415 - it brings pandas and dask

        own, others = _split(kwargs)
        return cls(from_uri(uri, **others), **own)

    @classmethod
    def from_profile(cls, profile: str, **kwargs: Any) -> Self:
        """Make a writer for a profile of Tiled's; what is no argument of ours goes to Tiled's `from_profile`."""
        from tiled.client import from_profile  # noqa: PLC0415

        own, others = _split(kwargs)
        return cls(from_profile(profile, **others), **own)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        if self._pid != os.getpid():  # the parent's runs, lock and connections are the parent's
            self._begin()
        with self._lock:
            self._run_router(name, doc)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._open: set[Run] = set()
        self._run_router = RunRouter([self._factory], filler_class=Unfilled)
        every_s = max(AGE_S_MIN, (self._age_s_max or 0.0) / 4)
        self._ticker = Ticker(self._lock, self._tick, every_s) if self._age_s_max is not None else None

    def _factory(self, _name: str, _doc: Mapping[str, Any]) -> tuple[list[Callable[..., None]], list[Any]]:
        """Make the callbacks of one run."""
        session = Session.from_context(self.client.context, tuple(self.client.path_parts))
        formats = Formats(spec_to_mimetype=self.spec_to_mimetype if self._normalizer is Own else {})
        driver = Driver(partial(perform, session, formats=formats), self._policy, TILED_RETRY_TIMEOUT)
        run = Run(driver, self._after_stop, normalizer=self._new_normalizer())
        self._open.add(run)
        if self._ticker is not None:
            self._ticker.start()
        writers = backups(self.backup_directory, self.backup_dictionary)
        return [ConditionalBackup(run, writers) if writers else run], []

    def _new_normalizer(self) -> Any:
        if self._normalizer is None or self._normalizer is Own:
            return None
        return self._normalizer(patches=self.patches, spec_to_mimetype=self.spec_to_mimetype)

    def _after_stop(self, run: "Run", uid: str) -> None:
        if run.settled:
            self._open.discard(run)
        if self._validate and not run.failed:
            self.client[uid].validate(ignore_errors=self.ignore_errors, raise_on_error=True)

    def _tick(self) -> bool:
        self._open = {run for run in self._open if not run.settled}
        for run in self._open:
            run.tick()
        return bool(self._open)


class Run:
    """The callback of one run."""

    def __init__(self, driver: Driver, after_stop: Callable[["Run", str], None], *, normalizer: Any) -> None:
        self._driver = driver
        self._after_stop = after_stop
        self._write: Callable[[str, Mapping[str, Any]], None] = self._take
        if normalizer is not None:
            normalizer.subscribe(self._take)
            self._write = normalizer
        self._stopped = False

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document; raises what keeps it from being written."""
        self._write(name, copy.deepcopy(dict(doc)))
        if name == "stop":
            self._after_stop(self, str(doc.get("run_start")))

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "stop":
            self._stopped = True
            doc = {key: value for key, value in doc.items() if key != NOTES}
        self._driver.take(name, doc)

    def abandon(self, error: Exception) -> None:
        """Mark what is written of the run as failed."""
        self._stopped = True
        self._driver.condemn(error)

    def tick(self) -> None:
        """Write what has become due."""
        self._driver.tick()

    @property
    def failed(self) -> bool:
        """Whether the run is not wholly in Tiled."""
        return self._driver.failed

    @property
    def settled(self) -> bool:
        """Whether nothing of it waits any more."""
        return self._stopped and self._driver.settled


def _policy(batch_size: int, max_array_size: int, age_s_max: float | None) -> Policy:
    age_s = math.inf if age_s_max is None else age_s_max
    return Policy(
        rows_max=max(1, batch_size),
        array_size_max=max_array_size,
        age_s_max=age_s,
        external_age_s_max=age_s,
        commit_interval_s=0.0,
        idle_s_max=math.inf,
        memory_bytes_max=2**62,  # a caller waits for each flush: nothing can pile up
        log_holds_runs=False,
        leaves_out_strays=True,
        version=__version__,
    )


def _normalizer(given: type[Any] | None) -> type[Any] | None:
    """The library's own class means what our core does anyway, only that ours does not fail where it does."""
    theirs = ("bluesky_tiled_plugins.writing.tiled_writer", "RunNormalizer")
    return Own if given is not None and (given.__module__, given.__qualname__) == theirs else given


_OWN = frozenset(TiledWriter.__init__.__kwdefaults__ or ())


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {name: value for name, value in kwargs.items() if name in _OWN}
    return own, {name: value for name, value in kwargs.items() if name not in _OWN}
