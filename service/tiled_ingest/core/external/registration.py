"""The nodes of external data: brought up to date with the log, audited at stop, given up one by one.

A registration is repeatable and never makes a node smaller, so what a lost reply has done does not matter; what a late
one does, a smaller shape over a larger one, the next one or the audit mends. What Tiled, or the library that knows the
formats, refuses of one data key is no reason to lose the run: this key's documents go to the dead letters.
"""

from tiled_ingest.core.errors import InvalidDocument, TiledRejected
from tiled_ingest.core.runs.documents import access_tags
from tiled_ingest.core.runs.letters import fail_if_backed_up, letter
from tiled_ingest.core.runs.run import Run
from tiled_ingest.core.steps import Letters, Procedure, Surroundings, read_log
from tiled_ingest.core.writes import Done, Missing, Registered, RegisterExternal, UpdateMetadata
from tiled_ingest.core.writing.patience import insist

from .key import External, Waiting

REFUSED = "external_refused"


def register(around: Surroundings, run: Run, external: External, waiting: Waiting) -> Procedure[bool]:
    """Bring what waits into the key's node; `False` if it went to the dead letters instead."""
    if not external.refusal:
        request = RegisterExternal(
            external.path, external.description, waiting.plan, access_tags(run.start), external.known
        )
        yield from _registered(around, run, external, request)
    if external.refusal:
        yield from _emit(run, external, waiting)
        return False
    return True


def _registered(around: Surroundings, run: Run, external: External, request: RegisterExternal) -> Procedure[bool]:
    """Perform the request; a refusal is noted, and ends what is written of this key."""
    try:
        answer = yield from insist(around, run.uid, request)
    except TiledRejected as error:
        external.refusal = str(error)
        where = "/".join(external.path[-2:])
        fail_if_backed_up(around, f"External data {where}: {external.refusal}")
        run.notes.append(f"External data {where}: not written any further, {external.refusal}.")
        around.tell("external_refused", run=run.uid, path=where, error=external.refusal)
        return False
    if not isinstance(answer, Done):
        raise TiledRejected(f"the stream {'/'.join(external.path[:-1])} is gone")
    registered: Registered = answer.value
    run.notes.extend(registered.notes)
    external.known = registered
    return True


def _emit(run: Run, external: External, waiting: Waiting) -> Procedure[None]:
    """Send the documents that are not in Tiled to the dead letters, each confirmed."""
    error = InvalidDocument(REFUSED, external.refusal)
    run.refused[REFUSED] += len(waiting.offsets)
    offset, stop = min(waiting.offsets), max(waiting.offsets) + 1
    while offset < stop:
        chunk = yield from read_log(offset, stop)
        yield Letters(
            tuple(letter(record, error, run.uid) for record in chunk.records if record.offset in waiting.offsets)
        )
        offset = chunk.next_offset


def audit(around: Surroundings, run: Run, external: External) -> Procedure[None]:
    """At stop: the node is what the plan says, whatever landed late; its metadata says how the files are read."""
    if external.unmet:
        where = "/".join(external.path[-2:])
        run.notes.append(f"External data {where}: {external.unmet} events name a datum that never came.")
    if external.refusal or not external.plan.uses:
        return
    # Now all is known: what stands there may be more only if it is wrong; unless the log has lost what a row came from.
    exact = not external.unmet and not run.refused["orphan"]
    tags = access_tags(run.start)
    request = RegisterExternal(external.path, external.description, external.plan.copy(), tags, exact=exact)
    written = yield from _registered(around, run, external, request)
    if not written or external.known is None or not external.known.metadata:
        return
    update = UpdateMetadata(external.path, external.known.metadata)
    if isinstance((yield from insist(around, run.uid, update)), Missing):
        raise TiledRejected(f"the node {'/'.join(external.path)} is gone")
