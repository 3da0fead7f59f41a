"""librdkafka's complaints: what is handed on, what is counted, and that nothing different is kept back."""

import logging

import pytest

from tiled_ingest.kafka.complaints import _KINDS_MAX, Complaints

LOGGER = logging.getLogger("tests.complaints")
REFUSED = "FAIL [us#consumer-1] [thrd:{0}/bootstrap]: {0}/bootstrap: Connect to ipv4#{0} failed: refused (after {1}ms)"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def complaints(clock: Clock) -> Complaints:
    return Complaints(LOGGER, clock)


def test_the_same_from_any_broker_is_told_once_a_minute_and_counted(
    complaints: Complaints, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for attempt in range(100):
        complaints.log(logging.ERROR, REFUSED.format(f"broker-{attempt % 3}.example:909{attempt % 3}", attempt))
        clock.now_s += 0.5
    first = REFUSED.format("broker-0.example:9090", 0)
    assert caplog.messages == [first]
    clock.now_s += 10.0
    again = REFUSED.format("10.0.0.7:9092", 3)
    complaints.log(logging.ERROR, again)
    complaints.log(logging.ERROR, again)
    assert caplog.messages == [first, f"{again} [and 99 more like this]"]
    clock.now_s += 60.0
    complaints.log(logging.ERROR, again)
    assert caplog.messages[2:] == [f"{again} [and 1 more like this]"]


def test_another_complaint_and_another_client_are_told_at_once(
    complaints: Complaints, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    refused, denied = REFUSED.format("a:1", 0), "FAIL [us#consumer-1] [thrd:a:1/1]: a:1/1: SASL: denied (after 2ms)"
    complaints.log(logging.ERROR, refused)
    complaints.log(logging.ERROR, denied)
    Complaints(LOGGER, clock).log(logging.ERROR, refused)
    assert caplog.messages == [refused, denied, refused]


def test_it_is_called_as_a_logger_is(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    complaints.log(logging.WARNING, "%s [%s] %s", "GETPID", "us#producer-2", "100 % of 3 tries")
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", "GETPID [us#producer-2] 100 % of 3 tries")
    ]


def test_what_nobody_would_see_is_not_counted(
    complaints: Complaints, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, LOGGER.name)
    complaints.log(logging.INFO, "the same")
    complaints.log(logging.ERROR, "the same")
    assert caplog.messages == ["the same"]


def test_it_remembers_so_many_only(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    def word(number: int) -> str:
        return "complaint " + "x" * number

    for number in range(_KINDS_MAX + 1):
        complaints.log(logging.ERROR, word(number))
    complaints.log(logging.ERROR, word(1))  # still known
    complaints.log(logging.ERROR, word(0))  # forgotten
    assert caplog.messages == [*map(word, range(_KINDS_MAX + 1)), word(0)]
