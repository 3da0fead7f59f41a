"""Kafka's errors in our words: what a `KafkaError` means for what we do next."""

from typing import Any

import confluent_kafka as ck

from tiled_ingest.core.errors import Forbidden, IngestError, OffsetOutOfRange
from tiled_ingest.core.record import Home

_E = ck.KafkaError

# Nobody but an administrator can mend these.
_FORBIDDEN = frozenset(
    {
        _E._AUTHENTICATION,  # noqa: SLF001 - librdkafka's own codes begin with an underscore
        _E.SASL_AUTHENTICATION_FAILED,
        _E.TOPIC_AUTHORIZATION_FAILED,
        _E.GROUP_AUTHORIZATION_FAILED,
        _E.CLUSTER_AUTHORIZATION_FAILED,
        _E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_OUT_OF_RANGE = frozenset({_E._AUTO_OFFSET_RESET, _E.OFFSET_OUT_OF_RANGE})  # noqa: SLF001

# The group went on without us: what we hold is no longer ours.
_FENCED = frozenset(
    {
        _E.ILLEGAL_GENERATION,
        _E.UNKNOWN_MEMBER_ID,
        _E.FENCED_INSTANCE_ID,
        _E.FENCED_MEMBER_EPOCH,
        _E.STALE_MEMBER_EPOCH,
        _E._FENCED,  # noqa: SLF001
        _E._ASSIGNMENT_LOST,  # noqa: SLF001
    }
)


class KafkaUnavailable(IngestError):
    """Kafka did not answer within its limit."""

    reason = "KafkaUnavailable"


class KafkaFatal(IngestError):
    """The client can never work again (another process took our instance id, say): end the process."""

    reason = "KafkaFatal"


class LogUnavailable(IngestError):
    """A read beside the group failed for now; it may be asked again."""

    reason = "LogUnavailable"


class CommitError(IngestError):
    """A commit was not confirmed.

    Parameters
    ----------
    detail
        What the broker, or we, said.
    fenced
        We are no member of this generation any more, or never owned the partition.
    """

    reason = "CommitError"

    def __init__(self, detail: str, *, fenced: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fenced = fenced


def kafka_error(exception: BaseException) -> Any:
    """Return the `KafkaError` that a `KafkaException` carries."""
    return exception.args[0] if exception.args else _E(_E._FAIL, str(exception))  # noqa: SLF001


def commit_error(error: Any) -> CommitError:
    """Translate the error of a commit."""
    return CommitError(f"{error.name()}: {error.str()}", fenced=error.code() in _FENCED)


def stopping_error(error: Any) -> IngestError | None:
    """Return the error with which the service must end; `None` if librdkafka goes on by itself."""
    sentence = f"{error.name()}: {error.str()}"
    if error.code() in _FORBIDDEN:
        return Forbidden(f"Kafka refuses us; its access lists or our credentials must change: {sentence}")
    if error.code() in _OUT_OF_RANGE:
        return OffsetOutOfRange(f"the log does not hold the offset at which we stand: {sentence}")
    if error.fatal() or error.code() == _E._FATAL:  # noqa: SLF001 - out of `consume`, `fatal()` is False
        return KafkaFatal(f"the Kafka client cannot go on: {sentence}")
    return None


def is_end(error: Any) -> bool:
    """Tell whether an "error" only says that the consumer stands at the end of a partition."""
    return bool(error.code() == _E._PARTITION_EOF)  # noqa: SLF001 - librdkafka's name for it


def reading_error(home: Home, error: Any) -> IngestError:
    """Translate the error of a read beside the group."""
    return stopping_error(error) or LogUnavailable(f"{home}: {error.name()}: {error.str()}")
