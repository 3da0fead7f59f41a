"""Resources and datums of one partition, and the events that wait for a datum.

They are of the partition and not of a run, because old resources do not say whose they are, and because several runs
may use one. Who comes after a crash reads them again: a run that uses what came before its own start needs the log from
there on.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tiled_ingest.core.errors import InvalidDocument
from tiled_ingest.core.runs.documents import content_hash

from .assets import Datum, Resource

RESOURCES_MAX = 1_000  # of runs that are over: another run may still use them
USED_MAX = 10_000  # datums that an event has used: another event may name them again
REBUILD = ""  # owner of what is read again before the runs that use it


@dataclass(frozen=True, slots=True)
class Wish:
    """An event that names a datum which has not come yet."""

    run: str
    stream: str
    key: str
    descriptor: str
    seq_num: int


T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    """A document, and the open runs that may use it."""

    item: T
    owners: set[str]


class Shelf:
    """What events may refer to.

    Parameters
    ----------
    datums_max
        Datums that wait to be used, and events that wait for a datum.
    """

    def __init__(self, datums_max: int) -> None:
        self._max = datums_max
        self._resources: dict[str, _Kept[Resource]] = {}
        self._old_resources: OrderedDict[str, Resource] = OrderedDict()
        self._datums: dict[str, _Kept[Datum]] = {}
        self._used: OrderedDict[str, _Kept[Datum]] = OrderedDict()
        self._wishes: dict[str, list[Wish]] = {}
        self._wished = 0

    # ------------------------------------------------------------ resources

    def put_resource(self, resource: Resource, owners: Iterable[str]) -> bool:
        """Keep a resource; `False` if it is here already.

        Raises
        ------
        InvalidDocument
            `conflicting_resource`: another one of its uid is.
        """
        if (known := self.resource(resource.uid)) is not None:
            if known.kind != resource.kind or _place(known) != _place(resource):
                raise InvalidDocument("conflicting_resource", f"another {known.kind} of this uid came before")
            return False
        self._resources[resource.uid] = _Kept(resource, set(owners))
        return True

    def resource(self, uid: str) -> Resource | None:
        """Return a resource, also of a run that is over (for a while)."""
        kept = self._resources.get(uid)
        return kept.item if kept else self._old_resources.get(uid)

    # ------------------------------------------------------------ datums

    def put_datum(self, datum: Datum, owners: Iterable[str]) -> bool:
        """Keep a datum; `False` if one of its id is here already."""
        if self.has_datum(datum.id):
            return False
        self._datums[datum.id] = _Kept(datum, set(owners))
        return True

    def check_datum(self, datum: Datum) -> None:
        """Raise `conflicting_datum` if another one of its id is here."""
        kept = self._datums.get(datum.id) or self._used.get(datum.id)
        if kept is not None and _content(kept.item) != _content(datum):
            raise InvalidDocument("conflicting_datum", "another datum of this id came before")

    def has_datum(self, datum_id: str) -> bool:
        """Whether a datum of this id is here."""
        return datum_id in self._datums or datum_id in self._used

    def check_room(self, count: int) -> None:
        """Raise `too_many_datums` if so many more are more than may wait to be used."""
        if len(self._datums) + count > self._max:
            raise InvalidDocument("too_many_datums", f"{self._max} datums wait to be used by an event")

    def use(self, datum_id: str) -> Datum | None:
        """Return the datum that an event names; `None` if it has not come."""
        kept = self._datums.pop(datum_id, None) or self._used.get(datum_id)
        if kept is None:
            return None
        self._used[datum_id] = kept
        while len(self._used) > USED_MAX:
            self._used.popitem(last=False)
        return kept.item

    # ------------------------------------------------------------ events that wait

    def wish(self, datum_id: str, wish: Wish) -> None:
        """Remember that an event waits for a datum; beyond the limit it will wait in vain."""
        if self._wished < self._max:
            self._wishes.setdefault(datum_id, []).append(wish)
            self._wished += 1

    def granted(self, datum_id: str) -> list[Wish]:
        """Return the events that waited for this datum, and forget that they did."""
        wishes = self._wishes.pop(datum_id, [])
        self._wished -= len(wishes)
        return wishes

    # ------------------------------------------------------------ the end of a run

    def forget(self, run: str) -> None:
        """Drop what only this run could use; its resources stay for a while."""
        _without(self._datums, run)
        _without(self._used, run)
        for uid, kept in [(uid, kept) for uid, kept in self._resources.items() if run in kept.owners]:
            kept.owners.discard(run)
            if not kept.owners:
                del self._resources[uid]
                self._old_resources[uid] = kept.item
        while len(self._old_resources) > RESOURCES_MAX:
            self._old_resources.popitem(last=False)
        self._forget_wishes(run)

    def _forget_wishes(self, run: str) -> None:
        for datum_id, wishes in list(self._wishes.items()):
            left = [wish for wish in wishes if wish.run != run]
            self._wished -= len(wishes) - len(left)
            if left:
                self._wishes[datum_id] = left
            else:
                del self._wishes[datum_id]


def _place(resource: Resource) -> str:
    """Hash what a resource says; it may come again in another run, which it names then."""
    return content_hash({key: value for key, value in resource.doc.items() if key != "run_start"})


def _content(datum: Datum) -> str:
    return content_hash({"resource": datum.resource, "datum_kwargs": datum.kwargs})


def _without(kept_by_id: dict[str, _Kept[Datum]], run: str) -> None:
    """Take a run from the owners; drop what has none any more."""
    for uid, kept in [(uid, kept) for uid, kept in kept_by_id.items() if run in kept.owners]:
        kept.owners.discard(run)
        if not kept.owners:
            del kept_by_id[uid]
