"""Every limit of the engine: its name, its default and its reason. Settings fill it; nothing else decides."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and choices that the engine obeys. Units and bounds stand last in each name."""

    # What ends a batch. An append costs Tiled 17-20 ms however small, and 50 000 rows go through twice as
    # fast as 10 000; a batch waits only while the run's lane is busy, or until it is old enough.
    rows_max: int = 50_000
    bytes_max: int = 32_000_000
    age_s_max: float = 0.2

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
    start_latest: bool = False
    accept_gap: bool = False  # go on where the log begins, when it has lost what was not read yet

    # Runs
    idle_s_max: float = 86_400.0
    open_max: int = 1_000
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

    # Whether a topic is told of each run that is over
    announces: bool = False

    # Where runs are created: (regular expression of the topic, path template); the first match counts.
    routes: tuple[tuple[str, str], ...] = ()

    # Our name for ourselves, in the metadata of runs
    version: str = "0"
