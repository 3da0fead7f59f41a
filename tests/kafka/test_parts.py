"""Letters in parts: what is cut can be joined, no part is too large, and what is not whole is told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_ingest.kafka.confirmed import Refusal
from tiled_ingest.kafka.parcel import Parcel
from tiled_ingest.kafka.parts import PREFIX, Cut, Label, Message, bytes_min
from tiled_ingest.tools.joining import Joiner
from tiled_ingest.tools.letter import Letter, letter_of

TOO_LARGE = Refusal("MSG_SIZE_TOO_LARGE: too large", 10)
DENIED = Refusal("TOPIC_AUTHORIZATION_FAILED: no", 29)


class Held:
    """A message as a consumer returns it."""

    def __init__(self, sent: Message, offset: int = 0, partition: int = 0) -> None:
        self._sent, self._at = sent, (partition, offset)

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self._sent.headers)

    def key(self) -> bytes | None:
        return self._sent.key

    def value(self) -> bytes | None:
        return self._sent.value

    def partition(self) -> int:
        return self._at[0]

    def offset(self) -> int:
        return self._at[1]


def letter(value: bytes | None, key: bytes | None = b"session", offset: int = 7, error: str = "why") -> Message:
    said = {"code": "late", "error": error, "topic": "docs", "partition": "0", "offset": str(offset), "run": "r"}
    return Message(key, value, [(PREFIX + name, text.encode()) for name, text in said.items()])


def parts_of(sent: Message, bytes_max: int, attempt: str = "one") -> list[Message]:
    cut = Cut(sent, bytes_max, attempt)
    return [cut.part(index) for index in range(cut.parts)]


def read(messages: list[Message], joiner: Joiner | None = None) -> list[Letter]:
    return list((joiner or Joiner()).take(letter_of(Held(each, at)) for at, each in enumerate(messages)))


def sent_of(found: Letter) -> tuple[bytes | None, bytes | None]:
    return found.key, found.value


keys = st.none() | st.binary(max_size=80) | st.integers(0, 20_000).map(lambda size: b"k" * size)
values = st.none() | st.integers(0, 60_000).map(lambda size: random.Random(size).randbytes(size))


@given(keys, values, st.text(max_size=300), st.integers(0, 20_000))
def test_what_is_cut_is_joined_again_and_no_part_is_too_large(
    key: bytes | None, value: bytes | None, error: str, more: int
) -> None:
    whole = letter(value, key, error=error.encode("utf-8", "replace").decode())
    bytes_max = bytes_min(whole) + more
    parts = parts_of(whole, bytes_max)
    assert max(part.nbytes for part in parts) <= bytes_max
    random.Random(more).shuffle(parts)
    (found,) = read(parts)
    assert sent_of(found) == (key, value)
    assert (found.parts, found.offset, found.code) == (len(parts), 7, "late")
    assert len({part.key for part in parts}) == 1, "all of them in one partition"
    if key is None or len(key) <= 80:
        assert parts[0].key == key or len(key or b"") > 32, "a short key is left as it is"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=8), st.randoms())
def test_attempts_that_were_cut_off_are_told_from_those_that_came_through(
    attempts: list[tuple[int, int]], order: random.Random
) -> None:
    """Several letters, each sent several times, some of them not to the end: what comes out is whole, or named."""
    whole = {at: letter(random.Random(at).randbytes(3_000), offset=at) for at in range(4)}
    sent: list[Message] = []
    through = set()
    for number, (at, share) in enumerate(attempts):
        parts = parts_of(whole[at], bytes_min(whole[at]) + 300, f"attempt {number}")
        assert len(parts) == 4
        sent += parts[:share]
        through |= {at} if share == 4 else set()
    order.shuffle(sent)
    joiner = Joiner()
    found = read(sent, joiner)
    assert [sent_of(each) for each in found] == [(b"session", whole[each.offset].value) for each in found]
    assert {each.offset for each in found} == through
    assert {each.letter.offset for each in joiner.torn()} == {at for at, _ in attempts} - through
    assert all(0 < each.there < each.parts == 4 for each in joiner.torn())


def test_a_letter_that_came_whole_later_is_not_called_torn() -> None:
    whole = letter(b"x" * 3_000)
    joiner = Joiner()
    assert len(read([*parts_of(whole, 1_200)[:2], whole], joiner)) == 1
    assert joiner.torn() == []


def test_parts_of_other_bytes_are_no_letter() -> None:
    first, *rest = parts_of(letter(b"x" * 3_000), 1_200)
    joiner = Joiner()
    assert read([first._replace(value=b"y" * len(first.value or b"")), *rest], joiner) == []
    assert [each.why for each in joiner.torn()] == [f"its {1 + len(rest)} parts are not what was cut"]


@pytest.mark.parametrize(
    "wrong", [{"part": "0"}, {"part": "9"}, {"parts": "many"}, {"bytes": ""}, {"parts": str(10**12), "part": "3"}]
)
def test_headers_that_make_no_sense_are_told_and_not_taken_for_a_letter(wrong: dict[str, str]) -> None:
    part = parts_of(letter(b"x" * 3_000), 1_200)[0]
    changed = [(name, wrong.get(name.removeprefix(PREFIX), value.decode()).encode()) for name, value in part.headers]
    joiner = Joiner()
    assert read([part._replace(headers=changed)], joiner) == []
    assert [each.why for each in joiner.torn()] == ["the headers of its parts make no sense"]


def test_what_waits_for_its_other_parts_has_a_limit() -> None:
    joiner = Joiner(held_bytes_max=10_000)
    for offset in range(100):
        read(parts_of(letter(b"x" * 3_000, offset=offset), 1_200)[:2], joiner)
    assert len(joiner.torn()) == 100
    assert joiner._held_bytes <= 10_000


def test_a_letter_that_came_whole_has_no_label() -> None:
    assert Label.of({"code": "late", "offset": "7"}) is None


# ---------------------------------------------------------------- on its way


class Topic:
    """Takes messages of a certain size; answers when asked to."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken: list[Message] = []
        self.asked: list[Message] = []
        self.under_way_max = 0

    def answer_all(self, parcel: Parcel) -> None:
        while self.asked:
            parts = [each.nbytes for each in self.asked if each.nbytes <= self.bytes_max]
            self.under_way_max = max(self.under_way_max, sum(parts))
            message = self.asked.pop(0)
            fits = message.nbytes <= self.bytes_max
            self.taken += [message] if fits else []
            parcel.heard(None if fits else TOO_LARGE)


def send(whole: Message, believed: int, takes: int, batch_bytes: int = 1) -> tuple[Topic, Parcel]:
    topic = Topic(takes)
    parcel = Parcel(whole, believed, batch_bytes, topic.asked.append)
    parcel.begin()
    topic.answer_all(parcel)
    assert parcel.done
    return topic, parcel


@given(st.integers(0, 40_000), st.integers(100, 50_000), st.integers(100, 60_000))
def test_whatever_the_topic_takes_is_found_out(size: int, takes: int, believed: int) -> None:
    whole = letter(random.Random(size).randbytes(size))
    topic, parcel = send(whole, believed, takes)
    if whole.nbytes <= takes:
        assert topic.taken == [whole], "what fits is sent as it is"
    elif parcel.refusal is None:
        assert [sent_of(each) for each in read(topic.taken)] == [(whole.key, whole.value)]
    else:
        assert parcel.refusal == TOO_LARGE
        assert takes < bytes_min(whole), "it was not tried down to the smallest parts"
        assert topic.taken == []


def test_few_parts_are_under_way_at_once() -> None:
    topic, parcel = send(letter(bytes(40_000_000)), 1_000_000, 1_000_000)
    assert parcel.refusal is None
    assert 4_000_000 < topic.under_way_max <= 9_000_000


def test_parts_that_the_client_could_make_one_batch_of_go_one_by_one() -> None:
    topic, _ = send(letter(bytes(400_000)), 10_000, 10_000, batch_bytes=16_384)
    assert len(topic.taken) > 40
    assert topic.under_way_max <= 10_000


def test_a_refusal_for_another_reason_ends_it_when_all_are_answered() -> None:
    asked: list[Message] = []
    parcel = Parcel(letter(bytes(50_000)), 10_000, 1, asked.append)
    parcel.begin()
    parcel.heard(TOO_LARGE)
    parcel.heard(None)
    under_way = len(asked) - 2
    assert under_way > 1
    parcel.heard(DENIED)
    for _ in range(under_way - 1):
        assert not parcel.done
        parcel.heard(TOO_LARGE)
    assert parcel.done
    assert parcel.refusal == DENIED
    assert len(asked) == 2 + under_way, "nothing was sent after the refusal"
