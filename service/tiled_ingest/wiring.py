"""The only place that names concrete parts: here the service is put together."""

import ctypes
import gc
import secrets
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.abc import MetaPathFinder

import pyarrow as pa
import structlog
from prometheus_client import CollectorRegistry

from . import __version__
from .core.engine import Engine
from .core.errors import Forbidden, IngestError
from .core.policy import Policy
from .core.writes import Done
from .ending import Ending
from .ingestor import Ended, Ingestor
from .kafka.announcements import Announcements
from .kafka.dead_letter_topic import bytes_max, ensure_topic
from .kafka.dead_letters import DeadLetters
from .kafka.errors import KafkaUnavailable
from .kafka.log_reader import LogReader
from .kafka.properties import check
from .kafka.source import Source
from .kafka.topics import Topics
from .lanes import Lanes
from .observe.health import Health, HealthServer
from .observe.logs import configure, report_crashes
from .observe.metrics import Metrics
from .observe.watch import Watch
from .observe.watchdog import Watchdog
from .settings import Settings, revealed
from .tiled.layout import perform
from .tiled.plugins import load
from .tiled.probe import SCOPES_NEEDED, key_scopes, server_version, too_old
from .tiled.session import Session

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's numbers of these parameters
MAPPED_BYTES_MIN = 4_194_304  # a block of this size is the system's again once it is freed
KEPT_BYTES_MAX = 16_777_216  # of free memory
GARBAGE_THRESHOLDS = 20_000, 20, 50  # by default the collector would come for every 700 events, and find nothing
KAFKA_LIMIT_S = 5.0  # of one attempt at the start


class WrongSetting(ValueError):
    """A setting that only shows itself to be wrong when it is used; the sentence names it."""


CALLED_OFF = Ended(detail="asked to end before it had begun")


def run_service(settings: Settings, ending: Ending, *, until_end: bool = False, accept_gap: bool = False) -> int:
    """Run until asked to end, or to the end of the topics; returns the exit status.

    Asked to end during its start, it ends with 0 after the step under way, and joins no group.
    """
    _give_memory_back()
    _keep_pandas_away()
    configure(settings.log.format, settings.log.level, settings.beamline, settings.secrets())
    report_crashes()
    log = structlog.get_logger("tiled_ingest")
    try:
        _check_properties(settings)
        with ExitStack() as stack:
            ended = _run(settings, ending, stack, until_end=until_end, accept_gap=accept_gap)
    except IngestError as error:
        ended = Ended(error.reason, str(error))
    except WrongSetting as error:
        print(f"tiled-ingest: {error}", file=sys.stderr)
        return 2
    if ended.reason:
        log.error("stopped", reason=ended.reason, error=ended.detail)
        return 1
    log.info("ended", **({"why": ended.detail} if ended.detail else {}))
    return 0


class _NoPandas(MetaPathFinder):
    """Says of pandas that it is not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Refuse pandas; leave all else to others."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def _keep_pandas_away() -> None:
    """Let pyarrow look for pandas now, and not find it: it would import it with the first rows, for 1 s and 60 MB."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])  # it looks once
    finally:
        sys.meta_path.remove(finder)


def _give_memory_back() -> None:
    """Let batches go back to the system when they are written: 20 MB each, 60 MB in a backlog.

    By itself glibc keeps blocks of up to 32 MB, and so does Arrow's own allocator; and each thread (of the lanes, of
    Kafka's clients) keeps what it has freed, where no other can use it: so all share one heap. Blocks of a poll are
    kept: the pages of memory that is new each time would cost as much as the work on it. Called before Arrow is used.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(_M_ARENA_MAX, 1)


def _run(settings: Settings, ending: Ending, stack: ExitStack, *, until_end: bool, accept_gap: bool) -> Ended:
    if ending.asked:
        return CALLED_OFF
    registry = CollectorRegistry()
    metrics = Metrics(registry, settings.beamline, __version__)
    health = Health(settings.limits.stalled_s_max)
    server = _health_server(settings, registry, health)
    stack.callback(server.close)
    watchdog = Watchdog(lambda: health.still_s, settings.limits.stalled_s_max)
    stack.callback(watchdog.close)  # late: it watches the other parts' ends, too
    structlog.get_logger("tiled_ingest").info("started", version=__version__, http_port=server.port)

    watch = Watch(metrics, health)
    if not _dead_letter_topic_is_there(settings, watch, ending):
        return CALLED_OFF
    policy = replace(settings.policy(), accept_gap=accept_gap)
    ingestor = _ingestor(settings, policy, stack, metrics, watch)
    if ending.asked:
        return CALLED_OFF
    watch.moved()
    watchdog.start()
    source = _source(settings, ingestor)
    stack.callback(source.close)
    ending.tell(ingestor.end)
    gc.freeze()  # what was imported stays: not to be looked through again and again
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    return ingestor.run(source, until_end=until_end)


def _check_properties(settings: Settings) -> None:
    try:
        check(revealed(settings.kafka.properties))
    except ValueError as error:
        raise WrongSetting(" ".join(str(error).split())) from error


def _health_server(settings: Settings, registry: CollectorRegistry, health: Health) -> HealthServer:
    host, port = settings.http.host, settings.http.port
    try:
        return HealthServer(host, port, registry, health)
    except OSError as error:
        raise WrongSetting(f"http.port: cannot listen on {host}:{port}: {error.strerror or error}") from error


def _dead_letter_topic_is_there(settings: Settings, watch: Watch, ending: Ending) -> bool:
    """Wait for Kafka, and see to the topic; `False` if we are asked to end before Kafka answers."""
    kafka = settings.kafka
    topics = _topics(settings)
    while not ending.asked:
        try:
            ensure_topic(topics, kafka.dead_letter_topic, kafka.topics)
        except KafkaUnavailable as error:
            watch.kafka_is_away(f"no answer from {kafka.bootstrap_servers}; waiting for it ({error})")
        else:
            return True
    return False


def _ingestor(settings: Settings, policy: Policy, stack: ExitStack, metrics: Metrics, watch: Watch) -> Ingestor:
    session = _session(settings)
    stack.callback(session.close)
    reader = _log_reader(settings)
    stack.callback(reader.close)
    letters = _dead_letters(settings)
    stack.callback(letters.close)
    formats, patches = load(settings.tiled.plugins)
    threads = settings.tiled.requests_max
    lanes = Lanes(partial(perform, session, formats=formats), reader, metrics.requested, threads)
    stack.callback(lanes.close)
    engine = Engine(policy.patched(patches), partial(secrets.token_hex, 5))
    announcements = _announcements(settings, stack)
    return Ingestor(engine, lanes, letters, watch, settings.limits.drain_s_max, announcements)


def _session(settings: Settings) -> Session:
    session = Session.at(settings.tiled.uri, settings.tiled.key, timeout_s=settings.tiled.timeout_s)
    _refuse_unfit(session)
    return session


def _refuse_unfit(session: Session) -> None:
    """A server that is away is waited for; one that is too old cannot do what we need, nor may a key without scopes.

    Some scopes are needed only after a crash: better to hear of them now.
    """
    answer = server_version(session)
    if not isinstance(answer, Done):
        return
    if refusal := too_old(answer.value):
        raise Forbidden(refusal)
    scopes = key_scopes(session)
    if isinstance(scopes, Done) and scopes.value is not None and (missing := SCOPES_NEEDED - scopes.value):
        raise Forbidden(f"the key for Tiled lacks the scope {', '.join(sorted(missing))}")


def _log_reader(settings: Settings) -> LogReader:
    kafka = settings.kafka
    return LogReader(kafka.bootstrap_servers, kafka.group_id, revealed(kafka.properties))


def _dead_letters(settings: Settings) -> DeadLetters:
    kafka, taken = settings.kafka, None
    with suppress(KafkaUnavailable):  # then its refusals tell
        taken = bytes_max(_topics(settings), kafka.dead_letter_topic)
    return DeadLetters(kafka.bootstrap_servers, kafka.dead_letter_topic, revealed(kafka.properties), __version__, taken)


def _topics(settings: Settings) -> Topics:
    return Topics(settings.kafka.bootstrap_servers, revealed(settings.kafka.properties), KAFKA_LIMIT_S)


def _announcements(settings: Settings, stack: ExitStack) -> Announcements | None:
    kafka = settings.kafka
    if kafka.completed_topic is None:
        return None
    made = Announcements(kafka.bootstrap_servers, kafka.completed_topic, revealed(kafka.properties), settings.beamline)
    stack.callback(made.close)
    return made


def _source(settings: Settings, ingestor: Ingestor) -> Source:
    kafka = settings.kafka
    return Source(
        kafka.bootstrap_servers,
        kafka.group_id,
        kafka.topics,
        revealed(kafka.properties),
        start_latest=kafka.start_offset == "latest",
        instance_id=kafka.instance_id,
        nonce=partial(secrets.token_hex, 5),
        on_revoke=ingestor.revoked,
        on_lost=ingestor.lost,
        commit_s_max=settings.limits.commit_s_max,
    )
