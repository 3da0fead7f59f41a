"""The group's consumer against a real broker."""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck
import pytest

from tests.kafka.conftest import MemberFactory
from tests.kafka.member import Member
from tests.kafka.trouble import delete_records, deny_reading, frozen
from tests.rig.fixtures import TopicFactory
from tests.rig.topics import add_partitions, recreate
from tiled_ingest.core.effects import EndReached, Records
from tiled_ingest.core.errors import Forbidden, OffsetOutOfRange
from tiled_ingest.core.offsets import ResumePoint
from tiled_ingest.core.record import Home
from tiled_ingest.demo.broker import Broker, KafkaBroker
from tiled_ingest.kafka import identity
from tiled_ingest.kafka import source as source_module
from tiled_ingest.kafka.errors import CommitError, KafkaFatal, KafkaUnavailable, stopping_error
from tiled_ingest.kafka.topics import Topics

pytestmark = pytest.mark.real

Produce = Callable[..., None]
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# ---------------------------------------------------------------- assignment


def test_a_partition_without_a_commit_arrives_paused(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name = topic()
    produce(name, numbered(5))
    one = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    claim = one.claims[Home(name, 0)]
    assert (claim.committed, claim.metadata, claim.low, claim.high, claim.nonce) == (None, "", 0, 5, "nonce")
    assert len(claim.topic_id) == 22  # base64 of a UUID
    assert one.source.assigned == {Home(name, 0)}
    assert one.poll_for(1).inputs == [claim]
    one.source.resume([claim.home, Home("not.ours", 3)])
    assert one.poll_until(lambda it: it.ends).values == numbered(5)


def test_latest_starts_at_the_end(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic()
    produce(name, numbered(5))
    one = member(name, start_latest=True).poll_until(lambda it: it.ends)
    produce(name, [b"new"])
    assert one.poll_until(lambda it: it.records).values == [b"new"]


def test_a_partition_that_was_added_begins_at_its_beginning(
    member: MemberFactory, broker: Broker, topic: TopicFactory, produce: Produce
) -> None:
    """Whichever member gets it, and whoever has claimed its siblings."""
    name = topic()
    home, added = Home(name, 0), Home(name, 2)
    produce(name, numbered(5))
    one = member(name, properties=QUICK, start_latest=True).poll_until(lambda it: it.claims)
    assert one.claims[home].partitions == 1
    one.source.commit(home, 5, ResumePoint(5, 1, "nonce", "id", partitions=1).encode())
    add_partitions(broker.bootstrap_servers, name, 3)
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap_servers})  # one that knows of it
    for value in numbered(3):
        producer.produce(name, value, partition=added.partition)
    assert producer.flush(10) == 0
    both = [one, member(name, properties=QUICK, start_latest=True)]
    until_s = time.monotonic() + 60
    while not all(any(place in it.ends for it in both) for place in (home, added)):
        assert time.monotonic() < until_s
        for it in both:
            it.poll()
    assert [it.claims[added].partitions for it in both if added in it.claims] == [1]
    assert [record.value for it in both for record in it.records] == numbered(3)


def test_a_commit_with_its_metadata_comes_back(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(5))
    first = member(name).poll_until(lambda it: it.ends)
    first.source.commit(home, 3, '{"v":1,"S":2,"é":""}')
    first.source.close()
    second = member(name).poll_until(lambda it: it.ends)
    assert (second.claims[home].committed, second.claims[home].metadata) == (3, '{"v":1,"S":2,"é":""}')
    assert second.values == [b"3", b"4"]


def test_a_commit_outside_of_the_log_is_told_and_nothing_flows(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(5))
    first = member(name).poll_until(lambda it: it.claims)
    first.source.commit(home, 50, "")
    first.source.close()
    second = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    assert (second.claims[home].committed, second.claims[home].high) == (50, 5)
    assert not second.poll_for(1).records


def test_a_topic_that_is_created_later_is_found(
    member: MemberFactory, broker: Broker, topic: TopicFactory, produce: Produce
) -> None:
    hint = f"early{uuid.uuid4().hex[:6]}"
    name = topic(hint)
    one = member([f"^{hint}\\..*", "missing.topic"], properties={"topic.metadata.refresh.interval.ms": "500"})
    one.poll_until(lambda it: it.claims and "missing.topic" in it.source.last_error)
    late = topic(hint)
    produce(late, [b"x"])
    assert one.poll_until(lambda it: it.records).values == [b"x"]
    assert Home(name, 0) in one.source.assigned


def test_topic_ids_differ_after_a_topic_was_made_again(
    member: MemberFactory, broker: Broker, topic: TopicFactory
) -> None:
    name = topic()
    before = member(name, "one").poll_until(lambda it: it.claims).claims[Home(name, 0)]
    recreate(broker.bootstrap_servers, name)
    after = member(name, "two").poll_until(lambda it: it.claims).claims[Home(name, 0)]
    assert before.topic_id != after.topic_id


def test_nothing_is_committed_that_came_out_of_a_topic_made_again(
    member: MemberFactory, broker: Broker, topic: TopicFactory, produce: Produce
) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(5))
    one = member(name).poll_until(lambda it: len(it.records) == 5)
    one.source.commit(home, 3, "of the old one")
    recreate(broker.bootstrap_servers, name)
    produce(name, numbered(9))
    one.source._identities.received()  # as the next poll does, which a rebalance may forestall
    with pytest.raises(OffsetOutOfRange, match="created again"):
        one.source.commit(home, 5, "of the new one")
    assert one.source.committed([home]) == {home: 0}, "Kafka forgets a group's commits with the topic"


def test_a_topic_made_again_is_noticed_without_any_commit(
    member: MemberFactory,
    broker: Broker,
    topic: TopicFactory,
    produce: Produce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "_LOOK_S", 0.2)
    name = topic()
    produce(name, numbered(5))
    one = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    one.poll_for(1)
    recreate(broker.bootstrap_servers, name)
    produce(name, numbered(9))
    with pytest.raises(OffsetOutOfRange, match="created again"):
        one.poll_for(20)


def test_one_question_for_a_topics_id_is_enough_for_a_round_of_commits(
    member: MemberFactory, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [topic(partitions=2), topic()]
    homes = [Home(names[0], 0), Home(names[0], 1), Home(names[1], 0)]
    one = member(names).poll_until(lambda it: len(it.claims) == 3)
    asked: list[set[str]] = []
    ask = Topics.ask_descriptions

    def counted(topics: Topics, names: set[str], limit_s: float) -> Any:
        asked.append(set(names))
        return ask(topics, names, limit_s)

    monkeypatch.setattr(Topics, "ask_descriptions", counted)
    for _ in range(2):
        one.poll()
        asked.clear()
        for home in homes:
            one.source.commit(home, 0, "")
        assert asked == [set(names)]


def test_a_topic_whose_id_is_not_told_in_time_only_delays_the_commits(
    member: MemberFactory, topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(partitions=2)
    one = member(name).poll_until(lambda it: len(it.claims) == 2)
    silence: Future[Any] = Future()
    with monkeypatch.context() as patch:
        patch.setattr(Topics, "ask_descriptions", lambda *_: {name: silence})
        patch.setattr(one.source, "_commit_s_max", 1.0)
        began_s = time.monotonic()
        for home in one.claims:
            with pytest.raises(CommitError, match="in time") as caught:
                one.source.commit(home, 0, "")
            assert not caught.value.fenced
        assert time.monotonic() - began_s < 2.0, "once for all of a round"
    one.poll_for(identity._REST_S)
    for home in one.claims:
        one.source.commit(home, 0, "")


# ---------------------------------------------------------------- records


def test_records_as_they_were_and_in_order(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic(partitions=2)
    produce(name, numbered(3_000), partition=0)
    produce(name, [b""], partition=1, key=None)
    one = member(name).poll_until(lambda it: len(it.ends) == 2)
    of_first = [record for record in one.records if record.partition == 0]
    assert [record.offset for record in of_first] == list(range(3_000))
    assert [record.value for record in of_first] == numbered(3_000)
    lone = next(record for record in one.records if record.partition == 1)
    assert (lone.topic, lone.key, lone.value) == (name, None, b"")
    assert abs(lone.timestamp_ms / 1000 - time.time()) < 60
    assert one.ends == {Home(name, 0): 3_000, Home(name, 1): 1}


def test_a_poll_never_waits_for_more_once_it_has_something(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name = topic()
    one = member(name).poll_until(lambda it: it.ends)
    produce(name, [b"x"])
    began_s = time.monotonic()
    assert any(isinstance(it, Records) for it in one.poll(timeout_s=20.0))
    assert time.monotonic() - began_s < 5


def test_the_end_lies_past_an_aborted_transaction(
    member: MemberFactory, topic: TopicFactory, transact: Produce
) -> None:
    name = topic()
    home = Home(name, 0)
    transact(name, [b"good"])
    transact(name, [b"bad"] * 3, abort=True)
    one = member(name).poll_until(lambda it: it.ends)
    assert one.values == [b"good"]
    assert one.ends[home] == one.claims[home].high == 6  # 1 + marker + 3 + marker
    assert one.source.lag() == {home: (6, 6)}
    assert one.source.end_offsets() == {home: 6}


def test_an_end_stands_between_the_records_around_it(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name = topic()
    produce(name, [b"a"])
    one = member(name).poll_until(lambda it: it.ends)
    produce(name, [b"b"])
    one.poll_until(lambda it: it.ends.get(Home(name, 0)) == 2)
    kinds = [type(it) for it in one.inputs if isinstance(it, Records | EndReached)]
    assert kinds == [Records, EndReached, Records, EndReached]


def test_pause_and_resume_lose_and_repeat_nothing(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(500))
    one = member(name).poll_until(lambda it: it.claims)
    while len(one.records) < 500:
        one.poll(records_max=37)
        one.source.pause([home])
        assert not one.source.poll(10, 0.01)
        one.source.resume([home])
    assert one.poll_until(lambda it: it.ends).values == numbered(500)


def test_lag_of_a_paused_partition_is_known(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(7))
    one = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    one.source.lag()
    one.poll_until(lambda it: it.source.lag()[home] == (None, 7))


# ---------------------------------------------------------------- rebalances


def test_a_revoked_partition_is_committed_inside_the_callback(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name = topic(partitions=2)
    for partition in (0, 1):
        produce(name, numbered(10), partition=partition)
    first = member(name, properties=QUICK).poll_until(lambda it: len(it.ends) == 2)

    def drain(homes: tuple[Home, ...]) -> None:
        for home in homes:
            first.source.commit(home, 10, "drained")

    first.at_revoke = drain
    second = member(name, properties=QUICK)
    until_s = time.monotonic() + 30
    while not second.claims and time.monotonic() < until_s:
        first.poll()
        second.poll()
    (moved,) = second.claims.values()
    assert first.revoked == [moved.home]
    assert (moved.committed, moved.metadata) == (10, "drained")
    assert first.source.assigned == {Home(name, 0), Home(name, 1)} - {moved.home}
    assert len(first.claims) == 2  # the one that stayed was not claimed again
    assert not first.lost


@pytest.mark.parametrize("protocol", [QUICK, {"group.protocol": "consumer"}], ids=["classic", "consumer"])
def test_assignments_are_counted_once_however_many_partitions(
    protocol: dict[str, str], member: MemberFactory, topic: TopicFactory
) -> None:
    """A second member comes and goes, once: with twelve partitions as with one."""
    name = topic(partitions=12)
    first = member(name, properties=protocol).poll_until(lambda it: len(it.source.assigned) == 12)
    alone = first.source.assignments
    second = member(name, properties=protocol)
    until_s = time.monotonic() + 30
    while len(second.source.assigned) < 6 and time.monotonic() < until_s:
        first.poll()
        second.poll()
    second.source.close()
    first.poll_until(lambda it: len(it.source.assigned) == 12)
    assert len(first.revoked) == 6
    # The alert on a storm counts with this: 3 for one that comes and goes (to come takes a cooperative group two).
    assert alone == 1
    assert 1 <= first.source.assignments - alone <= 3
    assert 1 <= second.source.assignments <= 2


def test_the_commit_of_a_partition_that_is_not_ours_is_not_sent(
    member: MemberFactory, topic: TopicFactory, produce: Produce
) -> None:
    name, other = topic(), topic()
    one = member(name).poll_until(lambda it: it.claims)
    with pytest.raises(CommitError, match="not ours") as caught:
        one.source.commit(Home(other, 0), 1, "")
    assert caught.value.fenced


def test_an_eager_assignor_works_too(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic(partitions=2)
    produce(name, [b"x"])
    eager = QUICK | {"partition.assignment.strategy": "range"}
    first = member(name, properties=eager).poll_until(lambda it: len(it.ends) == 2)
    second = member(name, properties=eager)
    until_s = time.monotonic() + 30
    while not second.claims and time.monotonic() < until_s:
        first.poll()
        second.poll()
    first.poll_until(lambda it: len(it.source.assigned) == 1)
    assert len(first.revoked) == 2  # everything, as eager protocols do
    assert len(second.source.assigned) == 1


def test_the_new_group_protocol_works_too(member: MemberFactory, topic: TopicFactory, produce: Produce) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(3))
    one = member(name, properties={"group.protocol": "consumer"}).poll_until(lambda it: it.ends)
    one.source.commit(home, 2, "new")
    one.source.close()
    again = member(name, properties={"group.protocol": "consumer"}).poll_until(lambda it: it.ends)
    assert (again.claims[home].committed, again.claims[home].metadata, again.values) == (2, "new", [b"2"])


def test_a_restarted_instance_gets_its_partitions_back_at_once(member: MemberFactory, topic: TopicFactory) -> None:
    name = topic()
    first = member(name, instance_id="one").poll_until(lambda it: it.claims)
    first.source.close()
    began_s = time.monotonic()
    second = member(name, instance_id="one").poll_until(lambda it: it.claims)
    assert time.monotonic() - began_s < 6
    assert not first.revoked  # static members do not leave
    assert second.claims


def test_a_zombie_with_our_instance_id_is_fenced(member: MemberFactory, topic: TopicFactory) -> None:
    name = topic()
    home = Home(name, 0)
    zombie = member(name, instance_id="one").poll_until(lambda it: it.claims)
    member(name, instance_id="one").poll_until(lambda it: it.claims)
    with pytest.raises(CommitError) as caught:
        zombie.source.commit(home, 1, "late")
    assert caught.value.fenced
    with pytest.raises(KafkaFatal):
        zombie.poll_for(15)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_member_whose_client_stays_out_of_the_group_ends(
    member: MemberFactory, topic: TopicFactory, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client was seen to do so without a word; here it is told to."""
    monkeypatch.setattr(source_module, "_OUT_S_MAX", 1.0)
    one = member(topic(), properties={"group.protocol": protocol}).poll_until(lambda it: it.claims)
    one.poll_for(3)  # it is a member, and asked whether it is
    one.source._consumer.unsubscribe()
    if protocol == "classic":
        one.source._went_out()
    with pytest.raises(KafkaUnavailable, match="not joined it again"):
        one.poll_for(15)


def test_a_member_that_does_not_poll_loses_its_partitions(member: MemberFactory, topic: TopicFactory) -> None:
    name = topic()
    home = Home(name, 0)
    slow = {"session.timeout.ms": "6000", "max.poll.interval.ms": "6000", "heartbeat.interval.ms": "300"}
    one = member(name, properties=slow).poll_until(lambda it: it.claims)
    time.sleep(8)
    one.poll_until(lambda it: it.lost)
    assert one.lost == [home]
    assert not one.revoked
    one.poll_until(lambda it: len([i for i in it.inputs if getattr(i, "nonce", None)]) == 2)  # claimed again


# ---------------------------------------------------------------- errors


def test_an_error_in_the_revoke_callback_leaves_through_poll(member: MemberFactory, topic: TopicFactory) -> None:
    name = topic(partitions=2)
    first = member(name, properties=QUICK).poll_until(lambda it: it.claims)

    def fail(_: object) -> None:
        raise Forbidden("from the owner")

    first.at_revoke = fail
    second = member(name, properties=QUICK)
    with pytest.raises(Forbidden, match="from the owner"):  # noqa: PT012 - both must go on
        for _ in range(300):
            second.poll()
            first.poll()


def test_a_log_that_was_cut_under_us_stops_the_service(
    member: MemberFactory, topic: TopicFactory, produce: Produce, broker: Broker
) -> None:
    name = topic()
    home = Home(name, 0)
    produce(name, numbered(10))
    one = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    delete_records(broker.bootstrap_servers, home, 8)
    one.source.resume([home])
    with pytest.raises(OffsetOutOfRange, match="does not hold the offset"):
        one.poll_for(15)
    one.source.commit(home, 3, "")
    one.source.close()
    again = member(name, auto_resume=False).poll_until(lambda it: it.claims)
    assert (again.claims[home].committed, again.claims[home].low, again.claims[home].high) == (3, 8, 10)
    assert not again.poll_for(1).records


def test_refused_access_is_a_mistake_of_the_configuration() -> None:
    error = stopping_error(ck.KafkaError(ck.KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert isinstance(error, Forbidden)
    assert stopping_error(ck.KafkaError(ck.KafkaError._TRANSPORT)) is None


def test_a_topic_that_we_may_not_read_stops_the_service() -> None:
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaBroker(properties=rules) as own:
        own.create_topic("t")
        deny_reading(own.bootstrap_servers, "t")
        one = Member(own.bootstrap_servers, "g", ["t"])
        with pytest.raises(Forbidden, match="Kafka refuses us"):
            one.poll_for(15)
        one.source.close()


@pytest.mark.parametrize("name", ["enable.auto.commit", "auto.offset.reset", "group.id", "group.instance.id"])
def test_a_property_that_we_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Member("127.0.0.1:1", "group", ["topic"], properties={name: "x"})


def test_a_broker_that_is_away_is_waited_for() -> None:
    one = Member("127.0.0.1:1", "group", ["topic"])
    assert one.poll_for(1.5).inputs == []
    assert "127.0.0.1:1" in one.source.last_error
    one.source.close()


def test_the_ends_of_logs_are_known_again_after_a_broker_was_restarted() -> None:
    """The admin client remembers the leaders' epochs of before; found by a fault run."""
    with KafkaBroker() as own:
        own.create_topic("docs")
        topics = Topics(own.bootstrap_servers, {}, limit_s=10.0)
        assert topics.highs([Home("docs", 0)]) == {Home("docs", 0): 0}
        own.kill()
        own.restart()
        assert topics.highs([Home("docs", 0)]) == {Home("docs", 0): 0}


def test_a_silent_broker_holds_up_neither_commit_nor_close() -> None:
    with KafkaBroker() as own:
        own.create_topic("t")
        one = Member(own.bootstrap_servers, "g", ["t"], call_s_max=2.0, commit_s_max=1.0)
        one.poll_until(lambda it: it.claims)
        with frozen(own):
            time.sleep(0.2)  # a stop is not at once for all of its threads
            began_s = time.monotonic()
            with pytest.raises(CommitError, match="TIMED_OUT") as caught:
                one.source.commit(Home("t", 0), 1, "")
            assert not caught.value.fenced
            assert one.source.lag().keys() == {Home("t", 0)}
            one.poll()
            one.source.close()
            assert time.monotonic() - began_s < 6


def test_of_many_partitions_the_first_alone_waits_for_a_silent_coordinator() -> None:
    with KafkaBroker() as own:
        own.create_topic("t", partitions=8)
        one = Member(own.bootstrap_servers, "g", ["t"], commit_s_max=1.0)
        one.poll_until(lambda it: len(it.claims) == 8)
        took_s = []
        with frozen(own):
            time.sleep(0.2)
            for partition in range(8):
                began_s = time.monotonic()
                with pytest.raises(CommitError) as caught:
                    one.source.commit(Home("t", partition), 0, "")
                assert not caught.value.fenced
                took_s.append(time.monotonic() - began_s)
        assert sum(took_s[1:]) < took_s[0]
        one.poll_until(lambda it: committed(it, Home("t", 7)), limit_s=60)
        one.source.close()


def test_a_broker_that_falls_silent_in_the_middle_of_a_commit_ends_the_service() -> None:
    with KafkaBroker() as own:
        own.create_topic("t")
        one = Member(own.bootstrap_servers, "g", ["t"], call_s_max=4.0)
        one.poll_until(lambda it: it.claims)
        one.source._heard_s = float("inf")  # as if it had spoken a moment ago
        one.source._identities.confirm(Home("t", 0), 4.0)
        with frozen(own):
            with pytest.raises(KafkaUnavailable, match=r"t\[0\]: Kafka gave no answer to a commit within 4 s"):
                one.source.commit(Home("t", 0), 0, "")
            began_s = time.monotonic()
            one.source.close()
            assert time.monotonic() - began_s < 1
        one.source._consumer.close()  # the process does not end here


def members(topics: Topics, limit_s: float = 30.0) -> set[str] | None:
    until = time.monotonic() + limit_s
    while (found := topics.members("g", 5.0)) is None and time.monotonic() < until:
        time.sleep(0.1)
    return found


def test_asking_for_members_of_a_group_of_a_broker_that_stands_still_does_no_harm() -> None:
    """Librdkafka ended the process when the broker went on, if such a question had timed out there meanwhile."""
    with KafkaBroker() as own:
        topics = Topics(own.bootstrap_servers, {})
        assert members(topics) == set()
        with frozen(own):
            until = time.monotonic() + 13
            while time.monotonic() < until:
                assert topics.members("g", 0.5) is None
                time.sleep(0.1)
        assert members(topics) == set()


def test_a_commit_succeeds_once_the_broker_speaks_again() -> None:
    with KafkaBroker() as own:
        own.create_topic("t")
        one = Member(own.bootstrap_servers, "g", ["t"], commit_s_max=1.0)
        one.poll_until(lambda it: it.claims)
        own.kill()
        with pytest.raises(CommitError):
            one.source.commit(Home("t", 0), 0, "")
        own.restart()
        one.poll_until(lambda it: committed(it, Home("t", 0)), limit_s=60)
        one.source.close()


MEMBER = """
import sys
import confluent_kafka as ck
consumer = ck.Consumer({"bootstrap.servers": sys.argv[1], "group.id": sys.argv[2], "auto.offset.reset": "earliest"})
consumer.subscribe([sys.argv[3]])
while (message := consumer.poll(1.0)) is None or message.error():
    pass
consumer.commit(message, asynchronous=False)
print("committed", flush=True)
while True:
    consumer.poll(1.0)
"""


def test_commits_are_known_while_the_group_waits_for_a_member_that_died(
    broker: Broker, topic: TopicFactory, produce: Produce
) -> None:
    """After a SIGKILL nobody can join until the session is over, and a member's own question waits with it."""
    name, group = topic(), f"g.{uuid.uuid4().hex[:8]}"
    home = Home(name, 0)
    produce(name, numbered(1))
    arguments = [sys.executable, "-c", MEMBER, broker.bootstrap_servers, group, name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as dies:
        assert dies.stdout is not None
        assert dies.stdout.readline() == b"committed\n"
        dies.kill()
    one = Member(broker.bootstrap_servers, group, [name], call_s_max=5.0).poll_for(2.0)
    assert not one.claims
    assert one.source.committed([home]) == {home: 1}
    assert one.source.committed([]) == {}
    one.source.close()


def committed(member: Member, home: Home) -> bool:
    try:
        member.source.commit(home, 0, "")
    except CommitError:
        return False
    return True
