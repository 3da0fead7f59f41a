"""`check` against a real broker and a real Tiled."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import httpx
import msgspec
import pytest
from confluent_kafka.admin import AclOperation, AclPermissionType, AdminClient, ResourceType

from tests.rig import application
from tests.rig.accounts import Accounts
from tests.rig.acls import impose, rule
from tests.rig.secure import secure_broker
from tiled_ingest.core.writes import CreateContainer, Done
from tiled_ingest.demo.broker import Broker, KafkaBroker
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.settings import Settings, load
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.probe import SCOPES_NEEDED
from tiled_ingest.tiled.session import Session
from tiled_ingest.tools.check import Finding, check, passed

pytestmark = pytest.mark.real


def settings(broker: Any, tiled_server: Any, topic: str, **changes: str) -> Settings:
    overrides = {
        "beamline": "sim",
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": f"group-{topic}",
        "kafka.topics": topic,
        "kafka.dead_letter_topic": f"{topic}-dead",
        "tiled.uri": tiled_server.uri,
        "tiled.api_key": tiled_server.api_key,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return load(None, overrides, {})


def publish(broker: Broker, topic: str, documents: list[tuple[str, Any]], *, partition: int, key: bytes | None) -> None:
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers})
    for document in documents:
        producer.produce(topic, msgspec.msgpack.encode(document), key, partition)
    assert producer.flush(10) == 0


def a_run() -> list[tuple[str, Any]]:
    uid = uuid.uuid4().hex
    stop = {"uid": uuid.uuid4().hex, "run_start": uid, "time": 2.0, "exit_status": "success"}
    return [("start", {"uid": uid, "time": 1.0}), ("stop", stop)]


def records_of(broker: Broker, tiled: TiledServer, name: str, **changes: str) -> Finding:
    return by_name(check(settings(broker, tiled, name, **changes)))[f"records of {name}"]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def keys(tiled_server: Any, node: str = "") -> list[str]:
    answer = httpx.get(
        f"{tiled_server.uri}/search/{node}", headers={"Authorization": f"Apikey {tiled_server.api_key}"}
    ).raise_for_status()
    return [item["id"] for item in answer.json()["data"]]


def test_all_is_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    broker.create_topic(f"{name}-dead")
    findings = check(settings(broker, tiled_server, name))
    assert passed(findings), findings
    found = by_name(findings)
    assert "1 partition" in found[f"topic {name}"].detail
    assert "new" in found["group"].detail
    assert found["tiled writing"].detail == "created, appended, read back, switched"
    embedded = "embedded" in found["tiled storage"].detail
    assert found["tiled storage"].verdict == ("warning" if embedded else "ok")
    assert found["clock"].verdict == "ok"
    assert "tiled clean-up" not in found
    assert not [key for key in keys(tiled_server) if key.startswith("tiled-ingest-check-")]


def test_topics_that_are_missing(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    findings = by_name(check(settings(broker, tiled_server, name, kafka__topics=f'["{name}x", "^{name}y"]')))
    assert findings[f"topic {name}x"].verdict == "failed"
    assert findings[f"topic ^{name}y"].verdict == "warning"
    assert findings["dead letters"].verdict == "ok"
    assert "`run` will create it" in findings["dead letters"].detail
    listed = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10).topics
    assert not {f"{name}x", f"{name}-dead"} & set(listed)  # looking created nothing


def test_a_topic_whose_messages_may_be_too_large(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    found = by_name(check(settings(broker, tiled_server, name, limits__message_bytes_max="1000")))
    assert found[f"topic {name}"].verdict == "warning"


def test_limits_of_topics_that_do_not_fit(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic(config={"max.message.bytes": "2000000"})
    broker.create_topic(f"{name}-dead", config={"max.message.bytes": "1000000"})
    letters = by_name(check(settings(broker, tiled_duckdb, name)))["dead letters"]
    assert (letters.verdict, f"larger ones of {name} go there in parts" in letters.detail) == ("ok", True)
    tiny = topic(config={"max.message.bytes": "2000"})
    letters = by_name(check(settings(broker, tiled_duckdb, topic(), kafka__dead_letter_topic=tiny)))["dead letters"]
    assert (letters.verdict, "hardly room" in letters.detail) == ("warning", True)
    compacted = topic(config={"cleanup.policy": "compact"})
    found = by_name(check(settings(broker, tiled_duckdb, compacted, kafka__dead_letter_topic=topic())))
    assert (found[f"topic {compacted}"].verdict, found["dead letters"].verdict) == ("warning", "ok")
    found = by_name(check(settings(broker, tiled_duckdb, topic(), kafka__dead_letter_topic=compacted)))
    assert found["dead letters"].verdict == "warning"


def test_records_that_are_well(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic(partitions=2)
    assert records_of(broker, tiled_duckdb, name).detail == "none yet"
    publish(broker, name, a_run() * 150, partition=0, key=b"session")
    publish(broker, name, a_run(), partition=1, key=b"another")
    found = records_of(broker, tiled_duckdb, name)
    assert (found.verdict, found.detail) == ("ok", "202 records looked at, all have a key")
    alone = topic()
    publish(broker, alone, a_run(), partition=0, key=None)
    assert records_of(broker, tiled_duckdb, alone).detail == "2 records looked at, one partition needs no keys"


def test_records_without_a_key_in_several_partitions(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic(partitions=3)
    publish(broker, name, a_run(), partition=2, key=None)
    found = records_of(broker, tiled_duckdb, name)
    assert found.verdict == "warning"
    assert found.detail == "2 of the last 2 have no key: runs will be scattered over 3 partitions"
    assert "one key" in found.hint


def test_a_run_that_is_scattered_though_it_has_keys(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic(partitions=2)
    run = a_run()
    publish(broker, name, run[:1], partition=0, key=b"a")
    publish(broker, name, run[1:], partition=1, key=b"b")
    found = records_of(broker, tiled_duckdb, name)
    assert found.verdict == "warning"
    assert found.detail.startswith("1 run of the last 2 lie in several partitions")
    assert "one key" in found.hint


def test_records_that_are_no_documents(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic()
    publish(broker, name, [*a_run(), ("nonsense", {})], partition=0, key=b"a")
    found = records_of(broker, tiled_duckdb, name)
    assert (found.verdict, "1 of the last 3" in found.detail, "unknown_kind" in found.detail) == ("warning", True, True)


def test_looking_at_records_moves_no_offset(broker: Any, tiled_duckdb: Any, topic: Any) -> None:
    name = topic()
    publish(broker, name, a_run(), partition=0, key=b"a")
    given = settings(broker, tiled_duckdb, name)
    assert by_name(check(given))["group"].detail.endswith("new")
    assert by_name(check(given))["group"].detail.endswith("new")


def test_rights_that_are_missing(tiled_duckdb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiled_ingest.tools.check.records.ANSWER_S_MAX", 60.0)  # the machine may be busy
    may, may_not = AclPermissionType.ALLOW, AclPermissionType.DENY
    rules = [
        rule(ResourceType.TOPIC, "t", AclOperation.DESCRIBE, may),
        rule(ResourceType.TOPIC, "t-dead", AclOperation.CREATE, may_not),
        rule(ResourceType.BROKER, "kafka-cluster", AclOperation.CREATE, may_not),
        rule(ResourceType.GROUP, "group-t", AclOperation.DESCRIBE, may_not),
    ]
    authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    with KafkaBroker(properties={"authorizer.class.name": authorizer, "allow.everyone.if.no.acl.found": "true"}) as own:
        own.create_topic("t")
        publish(own, "t", a_run(), partition=0, key=b"a")
        impose(own.bootstrap_servers, rules)
        found = by_name(check(settings(own, tiled_duckdb, "t")))
    assert found["topic t"].verdict == "warning"
    assert "AUTHORIZATION_FAILED" in found["topic t"].detail
    assert found["records of t"].verdict == "failed"
    assert found["records of t"].hint == "let us read the topic"
    assert found["dead letters"].verdict == "failed"
    assert found["group"].verdict == "failed"


def test_nodes_of_routes(broker: Any, tiled_server: Any, topic: Any) -> None:
    name = topic()
    mark = uuid.uuid4().hex[:8]
    headers = {"Authorization": f"Apikey {tiled_server.api_key}"}
    node = {"structure_family": "container", "metadata": {}, "data_sources": [], "specs": [], "id": mark}
    httpx.post(f"{tiled_server.uri}/metadata/", json=node, headers=headers).raise_for_status()

    def found(path: str) -> dict[str, Finding]:
        return by_name(
            check(settings(broker, tiled_server, name, tiled__routes=f'[{{"topic": ".*", "path": "{path}"}}]'))
        )

    there = found(mark)[f"tiled node {mark}"]
    assert (there.verdict, there.detail) == ("ok", "is there; we may create nodes")
    assert found(mark)[f"tiled spec of /{mark}"].verdict == "warning"
    absent = found(f"{mark}/a/b")[f"tiled node {mark}/a/b"]
    assert (absent.verdict, "not there yet" in absent.detail) == ("ok", True)
    unknown = found("{start[proposal]}")["tiled route .*"]
    assert (unknown.verdict, "not tried" in unknown.detail) == ("ok", True)
    unmatched = by_name(check(settings(broker, tiled_server, name, tiled__routes='[{"topic": "^d", "path": "x"}]')))
    assert unmatched["tiled route ^d"].verdict == "warning"
    below = httpx.get(f"{tiled_server.uri}/search/{mark}", headers=headers).raise_for_status()
    assert below.json()["data"] == []  # nothing is left of the trials


def test_what_readers_will_miss(broker: Any, topic: Any, tiled_duckdb: Any) -> None:
    found = by_name(check(settings(broker, tiled_duckdb, topic())))
    assert (found["tiled exporter"].verdict, found["tiled spec of /"].verdict) == ("ok", "warning")
    with TiledServer(config={"media_types": {}}) as bare:
        session = Session.at(bare.uri, bare.api_key)
        catalog = CreateContainer((), "catalog", {}, (("CatalogOfBlueskyRuns", "3.0"),), None)
        assert isinstance(perform(session, catalog), Done)
        session.close()
        found = by_name(check(settings(broker, bare, topic(), tiled__uri=f"{bare.uri}/metadata/catalog")))
        assert (found["tiled exporter"].verdict, found["tiled spec of /"].verdict) == ("warning", "ok")
        assert "media_types" in found["tiled exporter"].hint


def test_a_wrong_key(broker: Any, tiled_server: Any, topic: Any) -> None:
    wrong = "0123456789abcdef" * 2
    findings = check(settings(broker, tiled_server, topic(), tiled__api_key=wrong))
    assert by_name(findings)["tiled login"].verdict == "failed"
    assert wrong not in repr(findings)


def test_a_node_that_is_not_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    uri = f"{tiled_server.uri}/metadata/nowhere"
    found = by_name(check(settings(broker, tiled_server, topic(), tiled__uri=uri)))
    assert "failed" in {found[name].verdict for name in ("tiled", "tiled login") if name in found}


# ---------------------------------------------------------------- what is left behind


def test_least_rights_leave_one_node_however_often(broker: Any, topic: Any, tmp_path: Path) -> None:
    """And nothing in a beamline's node, where `client[-1]` would be it."""
    accounts = Accounts(tmp_path / "tiled")
    try:
        accounts.start()
        session = Session.at(accounts.tiled.uri, accounts.tiled.api_key)
        assert isinstance(perform(session, CreateContainer((), "xyz", {}, (), None)), Done)
        session.close()
        routes = '[{"topic": ".*", "path": "xyz"}]'
        given = settings(
            broker, accounts.tiled, topic(), tiled__api_key=accounts.key(SCOPES_NEEDED), tiled__routes=routes
        )
        for _ in range(3):
            findings = check(given)
            found = by_name(findings)
            assert passed(findings), findings
            assert found["tiled writing"].verdict == found["tiled clean-up"].verdict == "ok"
            assert found["tiled node xyz"].detail == "is there; we may create nodes"
        assert sorted(keys(accounts.tiled)) == ["tiled-ingest-check", "xyz"]
        assert keys(accounts.tiled, "xyz") == []
        lacking = settings(broker, accounts.tiled, topic(), tiled__routes=routes,
                           tiled__api_key=accounts.key(SCOPES_NEEDED - {"create:node"}))  # fmt: skip
        assert by_name(check(lacking))["tiled node xyz"].verdict == "failed"
    finally:
        accounts.tiled.stop()


# ---------------------------------------------------------------- streaming, files, access tags


@pytest.mark.parametrize(("config", "verdict"), [({}, "warning"), ({"streaming_cache": {"uri": "memory"}}, "ok")])
def test_whether_runs_can_be_watched(
    broker: Any, topic: Any, tiled_duckdb: Any, config: dict[str, Any], verdict: str
) -> None:
    with TiledServer(config=config) as tiled:
        found = by_name(check(settings(broker, tiled, topic())))["tiled streaming"]
    assert found.verdict == verdict
    assert ("streaming_cache" in found.hint) is (verdict == "warning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder that Tiled may read, and one that it may not, with a file each."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("readable", "elsewhere")}
    for folder in made.values():
        (folder / "frames.h5").write_bytes(b"whatever it is")
        (folder / "empty.h5").touch()
    return made


@pytest.fixture(scope="module")
def reading(folders: dict[str, Path]) -> Iterator[TiledServer]:
    with TiledServer(readable_folders=[folders["readable"]]) as made:
        yield made


def test_files_that_tiled_can_read_or_not(
    broker: Any, topic: Any, reading: TiledServer, folders: dict[str, Path]
) -> None:
    readable, elsewhere = folders["readable"], folders["elsewhere"]
    asked = {
        f"{readable}/frames.h5": ("ok", "Tiled's server reads it"),
        f"{readable}/empty.h5": ("ok", "Tiled's server reads it"),
        f"file://localhost{readable}/gone.h5": ("failed", "does not see it"),
        f"{readable}/": ("ok", "may read there"),
        f"{elsewhere}/frames.h5": ("failed", "not where Tiled's server may read"),
        f"{elsewhere}/": ("failed", "not where Tiled's server may read"),
        "s3://bucket/key": ("warning", "no file: address"),
    }
    findings = check(settings(broker, reading, topic()), asked)
    found = [each for each in findings if each.name.startswith("file ")]
    assert [each.verdict for each in found] == [verdict for verdict, _ in asked.values()]
    assert [words in each.detail for each, (_, words) in zip(found, asked.values(), strict=True)] == [True] * 7
    assert all(each.hint for each in found if each.verdict != "ok")
    assert (readable / "frames.h5").read_bytes() == b"whatever it is"  # the trial's nodes are gone, the files are not
    assert not keys(reading)


def test_files_are_looked_for_where_they_will_be_registered(
    broker: Any, topic: Any, reading: TiledServer, folders: dict[str, Path]
) -> None:
    for place, verdict in ((str(folders["readable"]), "ok"), ("/nowhere", "failed")):
        patches = f'[{{"match": "^/ioc", "replace": "{place}"}}]'
        findings = check(settings(broker, reading, topic(), tiled__patches=patches), ["/ioc/frames.h5"])
        assert by_name(findings)[f"file {place}/frames.h5"].verdict == verdict


def test_files_of_the_last_documents_are_looked_for(
    broker: Any, topic: Any, reading: TiledServer, folders: dict[str, Path]
) -> None:
    name = topic()
    run = a_run()
    resource = {"uid": uuid.uuid4().hex, "data_key": "x", "mimetype": "application/x-hdf5", "parameters": {}}
    there, away = (f"file://localhost{folder}/frames.h5" for folder in folders.values())
    resources = [("stream_resource", {**resource, "run_start": run[0][1]["uid"], "uri": uri}) for uri in (there, away)]
    publish(broker, name, [run[0], *resources, run[1]], partition=0, key=b"a")
    findings = check(settings(broker, reading, name))
    found = by_name(findings)
    assert found[f"file {folders['readable']}/frames.h5"].verdict == "ok"
    assert found[f"file {folders['elsewhere']}/frames.h5"].verdict == "warning"
    assert passed(findings)


def test_access_tags_on_a_server_with_a_policy(broker: Any, topic: Any, tmp_path: Path) -> None:
    (tmp_path / "everybody.py").write_text(Path(application.__file__).read_text())  # Tiled imports from its own folder
    policy = {"access_control": {"access_policy": "everybody:EverybodyMay", "args": {}}}
    name = topic()
    run = a_run()
    run[0][1]["tiled_access_tags"] = ["proposal-8"]
    publish(broker, name, run, partition=0, key=b"a")
    with TiledServer(tmp_path, config=policy) as tiled:
        application.define_tags(tiled.folder / "catalog.db", ["proposal-7"])
        findings = check(settings(broker, tiled, name), tags=["proposal-7", "proposal-9"])
        found = by_name(findings)
        assert found["tiled access tags"].detail.startswith("the server has an access policy")
        verdicts = [found[f"tiled access tag proposal-{number}"].verdict for number in (7, 8, 9)]
        assert verdicts == ["ok", "warning", "failed"]
        assert "not defined" in found["tiled access tag proposal-9"].detail
        # This policy lets nobody delete: the trial's node is left, and told; for the tags nothing was made.
        (left,) = keys(tiled)
        assert left in found["tiled clean-up"].hint


def test_access_tags_on_a_server_without_a_policy(broker: Any, topic: Any, tiled_duckdb: Any) -> None:
    found = by_name(check(settings(broker, tiled_duckdb, topic())))["tiled access tags"]
    assert (found.verdict, "no access policy" in found.detail) == ("ok", True)
    found = by_name(check(settings(broker, tiled_duckdb, topic()), tags=["proposal-7"]))["tiled access tags"]
    assert (found.verdict, "proposal-7" in found.detail) == ("warning", True)


# ---------------------------------------------------------------- Kafka that is not as it should be


def test_records_that_were_deleted_before_they_were_read(broker: Any, topic: Any, tiled_duckdb: Any) -> None:
    name = topic()
    publish(broker, name, a_run() * 5, partition=0, key=b"a")
    given = settings(broker, tiled_duckdb, name)
    assert by_name(check(given))[f"offsets of {name}"].detail == "nothing is committed yet"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})

    def commit(offset: int) -> None:
        place = ck.TopicPartition(name, 0, offset)
        asked = [ck.ConsumerGroupTopicPartitions(given.kafka.group_id, [place])]
        admin.alter_consumer_group_offsets(asked)[given.kafka.group_id].result(20)

    commit(2)
    assert by_name(check(given))[f"offsets of {name}"].verdict == "ok"
    place = ck.TopicPartition(name, 0, 6)
    admin.delete_records([place])[place].result(20)
    found = by_name(check(given))[f"offsets of {name}"]
    assert (found.verdict, "wants 2, the log holds 6 to 10" in found.detail) == ("failed", True)
    assert "--accept-gap" in found.hint
    commit(6)
    assert by_name(check(given))[f"offsets of {name}"].verdict == "ok"


@pytest.mark.parametrize(
    ("servers", "properties", "reason"),
    [
        ("no.such.host.invalid:9092", {}, "resolve"),
        ("127.0.0.1:1", {}, "Connection refused"),
        (None, {"security.protocol": "ssl"}, "SSL handshake failed"),
    ],
)
def test_why_kafka_does_not_answer(
    broker: Any, topic: Any, tiled_duckdb: Any, servers: str | None, properties: dict[str, str], reason: str
) -> None:
    changes = {"kafka__bootstrap_servers": servers or broker.bootstrap_servers}
    changes["kafka__properties"] = msgspec.json.encode(properties).decode()
    (found,) = [
        each for each in check(settings(broker, tiled_duckdb, topic(), **changes)) if each.name.startswith("kafka")
    ]
    assert (found.verdict, reason in found.detail) == ("failed", True), found


def test_plain_text_on_a_port_with_tls(tiled_duckdb: Any, tmp_path: Path) -> None:
    secure = secure_broker(tmp_path / "kafka")
    with secure.broker:
        given = settings(secure, tiled_duckdb, "t")
        found = by_name(check(given))["kafka"]
    assert (found.verdict, "security.protocol" in found.detail) == ("failed", True), found


def test_nobody_is_there(broker: Any, tiled_server: Any, topic: Any) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        findings = check(
            settings(
                broker,
                tiled_server,
                topic(),
                kafka__bootstrap_servers=address,
                tiled__uri=f"http://{address}",
            )
        )
    assert {finding.name: finding.verdict for finding in findings} == {
        "settings": "ok", "kafka": "failed", "tiled": "failed",
    }  # fmt: skip
