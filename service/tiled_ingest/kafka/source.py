"""The group's consumer: partitions come and go, records come in, offsets are committed.

One thread uses a `Source`; librdkafka runs the rebalance callbacks inside that thread's `poll`, so nothing
here needs a lock. Whatever may hang runs with a limit in time.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.effects import Assigned, Input
from tiled_ingest.core.errors import Forbidden, IngestError
from tiled_ingest.core.record import Home

from . import properties as props
from .claims import home_of, look_up, place_of, start_of
from .errors import CommitError, KafkaUnavailable, commit_error, kafka_error, stopping_error
from .identity import Identities
from .lag import Lag
from .messages import arrivals, only
from .topics import Topics, without_times
from .waiting import in_thread

_HEARD_S_MAX = 0.1  # the commits of many partitions follow each other: one question is enough
_DEAF_S = 1.0  # so long after a silence the commits of other partitions need not wait for the coordinator, too
_OUT_S_MAX = 30.0  # so long may a member that was counted out take to join again
_ASK_S_MAX = 3.0  # for the members of the group
_WAKE_S_MAX = 0.2

Homes = tuple[Home, ...]


class Source:
    """A member of the consumer group.

    Every partition arrives paused, with an `Assigned` input that tells where the group stood; it delivers
    nothing until `resume`.

    Parameters
    ----------
    topics
        Names; an entry that begins with `^` is a regular expression.
    properties
        librdkafka's properties of the site. `ValueError` names one that we own.
    start_latest
        Where a partition without a commit begins: at the end of its log instead of its beginning.
    instance_id
        Static membership: a restarted instance gets its partitions back at once.
    nonce
        Makes the random word that names a claim.
    on_revoke
        Called inside `poll` while the partitions are still ours: drain and commit there.
    on_lost
        Called inside `poll` when the partitions may have another owner already: write nothing.
    call_s_max
        Limit of the close, of a commit whose coordinator fell silent, and of each thing that is asked at an
        assignment.
    commit_s_max
        How long a commit waits for a silent coordinator.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the wiring alone calls it, by names
        self,
        bootstrap_servers: str,
        group_id: str,
        topics: Sequence[str],
        properties: Mapping[str, str],
        start_latest: bool,
        instance_id: str | None,
        nonce: Callable[[], str],
        on_revoke: Callable[[Homes], None],
        on_lost: Callable[[Homes], None],
        call_s_max: float = 30.0,
        commit_s_max: float = 5.0,
    ) -> None:
        made = props.group_consumer(bootstrap_servers, group_id, properties, instance_id)
        self.last_error = ""
        self.assignments = 0  # how often the group gave us our partitions, or told us that they stay
        self._incremental = props.is_incremental(made)
        self._wanted, self._start_latest, self._nonce = list(topics), start_latest, nonce
        self._group_id = group_id
        self._tell_revoked, self._tell_lost = on_revoke, on_lost
        self._call_s_max, self._commit_s_max = call_s_max, commit_s_max
        self._owned: set[Home] = set()
        self._rebalanced = self._closing = self._revoking = self._stuck = False
        self._claims: list[Assigned] = []
        self._failure: IngestError | None = None
        self._heard_s = float("-inf")
        self._silent_s = float("-inf")  # when the coordinator was last asked in vain
        self._member_s = time.monotonic()  # when we last heard that we are a member, or asked
        self._in_doubt = False  # whether the group went on without us since
        self._never_sure = made.get("group.protocol") == "consumer"
        self._topics = Topics(bootstrap_servers, properties, call_s_max)
        self._consumer = ck.Consumer(made | {"error_cb": self._on_error})
        self._lag = Lag(self._consumer, self._topics)
        self._identities = Identities(self._topics)
        self._consumer.subscribe(
            self._wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def assigned(self) -> frozenset[Home]:
        """The partitions that are ours at this moment."""
        return frozenset(self._owned)

    def poll(self, records_max: int, timeout_s: float) -> list[Input]:
        """Return what came in: assignments first, then records and ends in the order of their logs.

        Waits at most `timeout_s` for the first thing; never longer for more of them. Rebalance callbacks run
        in here and may take longer.

        Raises
        ------
        Forbidden, OffsetOutOfRange, KafkaFatal, KafkaUnavailable
            The service must end.
        """
        self._rebalanced = False
        self._see_whether_we_are_members()
        messages = self._consumer.consume(1, timeout_s)
        if messages and records_max > 1:
            # A second call: `consume` would otherwise wait for all of them until the time is over.
            messages += self._consumer.consume(records_max - 1, 0)
        self._identities.received()
        found = arrivals(messages, self._on_error)
        claims, self._claims = self._claims, []
        if self._rebalanced:  # the list may still hold what was fetched before
            found = only(found, self._owned - {claim.home for claim in claims})
        if self._failure:
            raise self._failure
        self._identities.look()
        self._lag.note(found)
        return [*claims, *found]

    def pause(self, homes: Iterable[Home]) -> None:
        """Stop delivering these partitions; those that are no longer ours are ignored."""
        if places := self._places(homes):
            self._consumer.pause(places)

    def resume(self, homes: Iterable[Home]) -> None:
        """Deliver these partitions from where they stand; those that are no longer ours are ignored."""
        if places := self._places(homes):
            self._consumer.resume(places)
            self._wake(places)

    def commit(self, home: Home, offset: int, metadata: str) -> None:
        """Commit; returns only after the broker confirmed. May be called inside `on_revoke`.

        The topic is asked for its id first: what was received may come out of a new one of its name.

        Raises
        ------
        CommitError
            Not confirmed. `fenced` if the partition is not ours (then nothing was sent), or if the group went
            on without us.
        OffsetOutOfRange
            The topic was deleted and created again since the partition was assigned; nothing was sent.
        KafkaUnavailable
            The coordinator fell silent after it was asked, and the client is stuck: the service must end.
        """
        if home not in self._owned:
            raise CommitError(f"{home} is not ours at this moment", fenced=True)
        place = ck.TopicPartition(home.topic, home.partition, offset, metadata)
        try:
            self._hear_coordinator(home)
            self._identities.confirm(home, self._commit_s_max)
            answers = self._commit_in_time(place)
        except ck.KafkaException as error:
            raise self._unconfirmed(kafka_error(error)) from error
        except TimeoutError as error:
            raise CommitError(f"{home}: Kafka did not tell the topic's id in time", fenced=False) from error
        self._heard_s = time.monotonic()
        for answer in answers:
            if answer.error:
                raise self._unconfirmed(answer.error)
        self._are_members()

    def _unconfirmed(self, error: Any) -> CommitError:
        """Translate a commit's error; where access lists refuse it, the next poll ends all: trying again is no use."""
        why = stopping_error(error)
        if isinstance(why, Forbidden):
            self._failure = self._failure or why
        translated = commit_error(error)
        if translated.fenced:
            self._went_out()
        return translated

    def _went_out(self) -> None:
        if not self._in_doubt:
            self._in_doubt, self._member_s = True, time.monotonic()

    def _are_members(self) -> None:
        self._in_doubt, self._member_s = False, time.monotonic()

    def _see_whether_we_are_members(self) -> None:
        """End a process whose client stays out of the group for ever, while it believes to be in it.

        librdkafka 2.16 may do so under the `consumer` protocol when the network was cut, without a word or callback.
        """
        if not (self._in_doubt or self._never_sure) or time.monotonic() - self._member_s < _OUT_S_MAX:
            return
        self._member_s = time.monotonic()
        members = self._topics.members(self._group_id, _ASK_S_MAX)
        if members is not None and self._consumer.memberid() not in members:
            raise KafkaUnavailable(
                f"the group does not have us any more, and the client has not joined it again within {_OUT_S_MAX:g} s: "
                "only a new process can go on"
            )

    def _hear_coordinator(self, home: Home) -> None:
        """Fail within a limit if the coordinator is silent.

        librdkafka tries a synchronous commit again and again until it speaks, and the client lets no other call
        through meanwhile. So it is asked first.
        """
        if time.monotonic() - self._silent_s < _DEAF_S:
            raise CommitError(f"{home}: the coordinator was silent a moment ago", fenced=False)
        if time.monotonic() - self._heard_s > _HEARD_S_MAX:
            try:
                self._consumer.committed([place_of(home)], timeout=self._commit_s_max)
            except ck.KafkaException:
                self._silent_s = time.monotonic()
                raise

    def _commit_in_time(self, place: Any) -> list[Any]:
        """Commit, with a limit for a coordinator that falls silent between the question and the commit.

        Inside a callback there is none: the client, busy with it, lets calls of that thread through only.
        """
        if self._revoking:
            answers: list[Any] = self._consumer.commit(offsets=[place], asynchronous=False)
            return answers
        committing: Future[list[Any]] = in_thread(lambda: self._consumer.commit(offsets=[place], asynchronous=False))
        try:
            return committing.result(self._call_s_max)
        except TimeoutError as error:
            self._stuck = True
            raise KafkaUnavailable(
                f"{home_of(place)}: Kafka gave no answer to a commit within {self._call_s_max:g} s, and the client "
                "waits for it: only a new process can go on"
            ) from error

    def lag(self) -> dict[Home, tuple[int | None, int]]:
        """Return each partition's position (`None` before the first record) and end of log; never waits."""
        return self._lag.of(sorted(self._owned))

    def end_offsets(self) -> dict[Home, int]:
        """Return where the logs of all partitions of our topics end now, ours or not."""
        return self._topics.highs(self._topics.homes(self._wanted))

    def committed(self, homes: Sequence[Home]) -> dict[Home, int]:
        """Return the group's committed offsets, of partitions that other members own, too; 0 without one."""
        return self._topics.committed(self._group_id, homes)

    def close(self) -> None:
        """Leave the group. The owner has drained and committed before: it is not asked again."""
        self._closing = True
        self._owned.clear()
        if self._stuck:
            return  # the group learns of our end by the session's time-out
        closing = in_thread(self._consumer.close)
        try:
            closing.result(self._call_s_max)
        except TimeoutError:
            self.last_error = "Kafka did not let the consumer leave in time"  # the process ends anyway

    def _on_error(self, error: Any) -> None:
        self.last_error = f"{error.name()}: {without_times(error.str())}"
        self._failure = self._failure or stopping_error(error)

    # ------------------------------------------------------------ rebalances

    def _on_assign(self, _: Any, places: list[Any]) -> None:
        """Take partitions; an error leaves through `poll`, as the client hands on what a callback raises."""
        if self._closing:
            return
        self._rebalanced = True
        self._are_members()
        self.assignments += 1
        homes = [home_of(place) for place in places]
        claims = look_up(self._consumer, self._topics, homes, self._nonce, self._call_s_max)
        starts = [start_of(claim, self._start_latest) for claim in claims]
        if self._incremental:
            self._consumer.incremental_assign(starts)
        else:
            self._consumer.assign(starts)
        if starts:
            self._consumer.pause(starts)
        self._owned |= set(homes)
        self._identities.claim(claims)
        self._claims += claims

    def _on_revoke(self, _: Any, places: list[Any]) -> None:
        homes = tuple(home_of(place) for place in places)
        if not self._closing:
            self._revoking = True
            try:
                self._tell_revoked(homes)
            finally:
                self._revoking = False
        self._let_go(homes)

    def _on_lost(self, _: Any, places: list[Any]) -> None:
        homes = tuple(home_of(place) for place in places)
        self._owned -= set(homes)
        self._went_out()
        if not self._closing:
            self._tell_lost(homes)
        self._let_go(homes)

    def _let_go(self, homes: Homes) -> None:
        self._rebalanced = True
        self._owned -= set(homes)
        self._claims = [claim for claim in self._claims if claim.home not in homes]
        self._lag.forget(homes)
        self._identities.forget(homes)
        if self._incremental:
            self._consumer.incremental_unassign([place_of(home) for home in homes])
        else:
            self._consumer.unassign()

    def _wake(self, places: Iterable[Any]) -> None:
        """Make librdkafka fetch now: where all was paused it looks once a second, or when asked."""
        until_s = time.monotonic() + _WAKE_S_MAX
        for place in places:
            try:
                self._consumer.get_watermark_offsets(place, timeout=max(until_s - time.monotonic(), 0.001))
            except ck.KafkaException:
                return  # it fetches a second later

    def _places(self, homes: Iterable[Home]) -> list[Any]:
        return [place_of(home) for home in homes if home in self._owned]
