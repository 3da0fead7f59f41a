"""Every limit of the engine: its name, its default and its reason. Settings fill it; nothing else decides."""

from dataclasses import dataclass, field, replace

from .decoding.patches import Patches, joined


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and choices that the engine obeys. Units and bounds stand last in each name."""

    # What ends a batch. An append costs Tiled 17-20 ms however small, and 50 000 rows go through twice as
    # fast as 10 000; a batch waits only while the run's lane is busy, or until it is old enough.
    rows_max: int = 50_000
    bytes_max: int = 32_000_000
    age_s_max: float = 0.2

    # External data. A registration is one request, and leaves a structure in Tiled's catalog for good: so it may wait
    # longer than rows. Hostile ranges: 2**63 rows cost nothing to claim.
    external_age_s_max: float = 0.5
    external_rows_max: int = 10_000_000
    datums_max: int = 200_000  # of a partition, that no event has used yet; and events that wait for theirs

    # Tiled: how long an ambiguous append is looked for; how retries back off; how many requests at once.
    late_write_s_max: float = 30.0
    backoff_s_min: float = 0.1
    backoff_s_max: float = 15.0
    requests_max: int = 4  # on PostgreSQL; on embedded storage always 1 (it loses rows under two writers)
    knock_s: float = 15.0  # how long we ask Tiled for nothing before we look whether it is there
    server_errors_max: int = 5  # the same 5xx so often, while other writes succeed: the data is at fault

    # Kafka
    commit_interval_s: float = 0.5
    log_chunk_bytes: int = 16_000_000
    log_holds_runs: bool = True  # false in process: a new dataset gets its rows from the old one, by way of Tiled
    # In process, where there are no dead letters, what events say of keys that no descriptor names is left out with a
    # note, as TiledWriter leaves it out; elsewhere it is a dead letter.
    leaves_out_strays: bool = False
    # In process, beside a backup that takes the whole run as soon as a document of it is refused: then the run fails in
    # Tiled, too, and has no stop document there, so that a part of it cannot pass for the whole.
    backed_up: bool = False
    # Of a log that holds one run, whole (`tools/rebuild`): its rows are written at its end, in one switch; a run that
    # was closed or has failed is taken up again, and one that someone else wrote, if it is to be adopted.
    writes_anew: bool = False
    adopts: bool = False
    start_latest: bool = False
    accept_gap: bool = False  # go on where the log begins, when it has lost what was not read yet

    # Runs
    idle_s_max: float = 86_400.0
    open_max: int = 1_000
    # Runs without a stop that were given up and may go on: what they must remember for that. 8 bytes an event; beside
    # its documents: so the bytes are those of millions of events.
    dormant_max: int = 200
    dormant_bytes_max: int = 32_000_000
    foreign_skip: bool = False
    finished_remembered_max: int = 10_000  # uids of finished runs, so that late documents are named so

    # Memory: buffered bytes in all, as they came; as Python objects they weigh about six times as much. Above it intake
    # pauses, below half of it intake resumes.
    memory_bytes_max: int = 64_000_000

    # The dead-letter breaker: of the last `breaker_window` documents, at most this share may be refused.
    breaker_window: int = 1_000
    breaker_share_max: float = 0.9
    end_s_max: float = 20.0  # how long we settle what was begun, once it has opened

    # What a message may cost
    message_bytes_max: int = 64_000_000
    nesting_max: int = 64
    elements_max: int = 5_000_000

    # Arrays of more elements than this have a node of their own, as in TiledWriter; -1: none, 0: all.
    array_size_max: int = 16
    table_columns_max: int = 1_024  # a table of more is split, as in TiledWriter

    # Events are read from bytes to columns in stretches; shorter ones are decoded one by one, which is quicker then.
    layout_rows_min: int = 16

    # Whether a topic is told of each run that is over
    announces: bool = False

    # Where runs are created: (regular expression of the topic, path template); the first match counts.
    routes: tuple[tuple[str, str], ...] = ()

    # What a site changes in documents, by their kind
    patches: Patches = field(default_factory=dict)

    # Our name for ourselves, in the metadata of runs
    version: str = "0"

    def patched(self, more: Patches) -> "Policy":
        """Return the same with more patches, to be applied after those that are there."""
        return replace(self, patches=joined(self.patches, more))
