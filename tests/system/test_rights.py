"""The rights that docs/operating.md asks for, and no others: with them all goes well, without one of them it is named.

Tiled has accounts here, and Kafka access lists: both refuse what was not allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.rig.accounts import Accounts
from tests.rig.acls import impose, rule
from tests.rig.fixtures import TopicFactory, topics_of
from tests.rig.secure import PASSWORD, USER, SecureBroker, secure_broker
from tests.system.publishing import interleaved, runs
from tests.system.scene import Scene
from tests.system.service import Service
from tiled_ingest.demo.broker import Broker
from tiled_ingest.demo.tiled_server import TiledServer
from tiled_ingest.settings import load
from tiled_ingest.tiled.probe import SCOPES_NEEDED
from tiled_ingest.tools.check import Finding, check, passed

pytestmark = pytest.mark.real
OPERATING = Path(__file__).parent.parent.parent / "docs" / "operating.md"

Right = tuple[ResourceType, str, AclOperation]


def findings(service: Service) -> list[Finding]:
    """What `tiled-ingest check` says with the service's settings."""
    return check(load(environ=service.environment))


def failures(service: Service) -> str:
    return "\n".join(f"{each.name}: {each.detail}" for each in findings(service) if each.verdict == "failed")


def needed(what: str) -> str:
    """What the table of docs/operating.md says."""
    (row,) = [line for line in OPERATING.read_text().splitlines() if line.startswith(f"| {what} |")]
    return row


def do_everything(scene: Scene, service: Service) -> None:
    """Runs, garbage, and a crash in the middle, after which a table is switched: nothing may be refused."""
    publication = scene.publication(interleaved(runs()))
    service.start_claimed()
    publication.publish_to(0.5)
    service.wait_for("flush")
    service.kill()
    service.start_claimed()
    scene.produce(b"no document of ours")
    publication.publish()
    scene.settle()
    assert service.lines("switched")
    scene.compare(publication.published, "complete")
    assert [letter.code for letter in scene.letters()] == ["undecodable"]


# ---------------------------------------------------------------- Tiled


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    made = Accounts(tmp_path_factory.mktemp("accounts") / "tiled")
    try:
        made.start()
        yield made
    finally:
        made.tiled.stop()


@pytest.fixture
def scene(broker: Broker, accounts: Accounts, topic: TopicFactory, tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(broker, accounts.tiled, topic, tmp_path)) as made:
        yield made


def test_the_scopes_that_we_ask_for_are_enough(scene: Scene, accounts: Accounts) -> None:
    assert set(re.findall(r"`(\w+:?\w+)`", needed("Tiled"))) == SCOPES_NEEDED
    service = scene.service(tiled__api_key=accounts.key(SCOPES_NEEDED))
    do_everything(scene, service)
    said = findings(service)
    assert passed(said), said
    # The storage is embedded, nobody can watch, the topic holds what is no document, and the root has no spec.
    warned = {"tiled storage", "tiled streaming", f"records of {scene.topic}", "tiled spec of /"}
    assert {each.name for each in said if each.verdict == "warning"} == warned


@pytest.mark.parametrize("scope", sorted(SCOPES_NEEDED))
def test_a_scope_that_is_missing_is_named(scene: Scene, accounts: Accounts, scope: str) -> None:
    service = scene.service(tiled__api_key=accounts.key(SCOPES_NEEDED - {scope})).start()
    assert service.ended() == 1
    (stopped,) = service.lines("stopped")
    assert (stopped["reason"], stopped["error"]) == ("Forbidden", f"the key for Tiled lacks the scope {scope}")
    told = failures(service)
    assert scope in told
    if scope != "read:metadata":  # without that nothing else can be looked at
        assert "tiled writing" in told, "the server would have done without"


def test_a_user_without_special_rights_cannot_make_our_key(accounts: Accounts) -> None:
    """What docs/operating.md says of `register`."""
    assert SCOPES_NEEDED - accounts.user_scopes() == {"register"}


# ---------------------------------------------------------------- Kafka


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    made = secure_broker(tmp_path_factory.mktemp("guarded") / "kafka", guarded=True)
    with made.broker:
        yield made


@pytest.fixture
def kafka_scene(guarded: SecureBroker, tiled_duckdb: TiledServer, tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(guarded.broker, tiled_duckdb, topics_of(guarded.broker), tmp_path)) as made:
        yield made


def rights_of(scene: Scene) -> list[Right]:
    """The rights that are enough where the dead letters' topic is there."""
    return [
        (ResourceType.TOPIC, scene.topic, AclOperation.READ),
        (ResourceType.GROUP, scene.group, AclOperation.READ),
        (ResourceType.TOPIC, f"{scene.group}.dead-letters", AclOperation.WRITE),
    ]


def allow(scene: Scene, rights: Iterable[Right]) -> None:
    rules = [rule(kind, name, operation, AclPermissionType.ALLOW, USER) for kind, name, operation in rights]
    impose(scene.broker.bootstrap_servers, rules)


def service_of(scene: Scene, guarded: SecureBroker, **more: Any) -> Service:
    properties = {**guarded.client_properties, "sasl.password": PASSWORD}
    return scene.service(kafka__bootstrap_servers=guarded.bootstrap_servers, kafka__properties=properties, **more)


def test_the_access_lists_that_we_ask_for_are_enough(kafka_scene: Scene, guarded: SecureBroker) -> None:
    scene = kafka_scene
    scene.broker.create_topic(f"{scene.group}.dead-letters")
    allow(scene, rights_of(scene))
    service = service_of(scene, guarded)
    do_everything(scene, service)
    said = findings(service)
    assert passed(said), said
    unseen = {each.name for each in said if "AUTHORIZATION_FAILED" in each.detail}
    assert unseen == {
        f"topic {scene.topic}",
        "dead letters",
    }  # their configurations: DescribeConfigs, for `check` alone


def test_with_create_the_dead_letter_topic_is_made(kafka_scene: Scene, guarded: SecureBroker) -> None:
    scene = kafka_scene
    letters = (ResourceType.TOPIC, f"{scene.group}.dead-letters", AclOperation.CREATE)
    allow(scene, [*rights_of(scene), letters])
    service_of(scene, guarded).start_claimed()
    assert scene.letters() == []


LESS: dict[str, tuple[int, Any, str, str]] = {
    # which of the rights goes, what remains of it, what `run` says, what `check` says
    "topic": (0, None, "TOPIC_AUTHORIZATION_FAILED", "does not exist, or we may not see it"),
    "topic, only described": (0, AclOperation.DESCRIBE, "TOPIC_AUTHORIZATION_FAILED", "we may not read it"),
    "group": (1, None, "GROUP_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"),
    "dead letters": (2, None, "TOPIC_AUTHORIZATION_FAILED", "is missing, and we may not create it"),
    "dead letters, only described": (2, AclOperation.DESCRIBE, "TOPIC_AUTHORIZATION_FAILED", "we may not write it"),
}


@pytest.mark.parametrize("case", LESS)
def test_a_right_that_is_missing_is_named(kafka_scene: Scene, guarded: SecureBroker, case: str) -> None:
    which, remains, run_says, check_says = LESS[case]
    scene = kafka_scene
    scene.broker.create_topic(f"{scene.group}.dead-letters")
    rights = rights_of(scene)
    kind, name, _ = rights.pop(which)
    allow(scene, [*rights, *([(kind, name, remains)] if remains else [])])
    scene.produce(b"no document of ours")
    service = service_of(scene, guarded).start()
    assert service.ended(40) == 1
    (stopped,) = service.lines("stopped")
    assert run_says in stopped["error"]
    assert check_says in failures(service)
    assert PASSWORD not in service.text()


def test_without_the_right_to_announce_it_goes_on_and_settles_no_end(kafka_scene: Scene, guarded: SecureBroker) -> None:
    """As docs/operating.md says of `kafka.completed_topic`; `Write` is enough for it."""
    scene = kafka_scene
    completed = f"{scene.group}.completed"
    for name in (completed, f"{scene.group}.dead-letters"):
        scene.broker.create_topic(name)
    allow(scene, rights_of(scene))
    publication = scene.publication(runs(1)[0])
    publication.publish()
    service = service_of(scene, guarded, kafka__completed_topic=completed).start()
    refused = service.wait_for("announcement_refused", count=2)
    assert "TOPIC_AUTHORIZATION_FAILED" in refused["detail"]
    assert scene.committed() < scene.end()
    assert failures(service) == f"topic {completed}: does not exist, or we may not see it"
    allow(scene, [(ResourceType.TOPIC, completed, AclOperation.WRITE)])
    scene.settle()
    scene.verify()
    assert failures(service) == ""


def test_topics_by_pattern_are_allowed_by_their_beginning(kafka_scene: Scene, guarded: SecureBroker) -> None:
    scene = kafka_scene
    scene.broker.create_topic(f"{scene.group}.dead-letters")
    beginning = scene.topic[:-1]
    (kind, _, operation), *others = rights_of(scene)
    allow(scene, others)
    pattern = rule(kind, beginning, operation, AclPermissionType.ALLOW, USER, ResourcePatternType.PREFIXED)
    impose(scene.broker.bootstrap_servers, [pattern])
    publication = scene.publication(runs(1)[0])
    publication.publish()
    service_of(scene, guarded, kafka__topics=[f"^{re.escape(beginning)}"]).start()
    scene.settle()
    scene.verify()


def test_dead_letters_that_are_denied_stop_it_until_they_are_allowed(kafka_scene: Scene, guarded: SecureBroker) -> None:
    """As docs/runbooks/TiledIngestAbsent.md says of `DeadLetterFailed`."""
    scene = kafka_scene
    scene.broker.create_topic(f"{scene.group}.dead-letters")
    *others, (kind, name, write) = rights_of(scene)
    allow(scene, [*others, (kind, name, AclOperation.DESCRIBE)])
    scene.produce(b"no document of ours")
    service = service_of(scene, guarded).start()
    assert service.ended(40) == 1
    (stopped,) = service.lines("stopped")
    assert stopped["reason"] == "DeadLetterFailed"
    assert f"topic {name} did not take the letter for {scene.topic}[0] at 0" in stopped["error"]
    assert "allow us to write to the topic" in stopped["error"]
    allow(scene, [(kind, name, write)])
    service.start()
    scene.settle()
    assert [letter.code for letter in scene.letters()] == ["undecodable"]
