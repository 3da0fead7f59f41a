"""The dead-letter topic, read without a group: each letter with what its headers say."""

from collections.abc import Iterator

from tiled_ingest.kafka.topics import Topics
from tiled_ingest.settings import Kafka, revealed
from tiled_ingest.tools.log import messages

from .joining import Joiner, Torn
from .letter import Letter, letter_of

__all__ = ["Letter", "Torn", "read_letters"]

ANSWER_S_MAX = 30.0


def read_letters(kafka: Kafka, torn: list[Torn]) -> Iterator[Letter]:
    """Yield all letters that the topic holds now, partition by partition, in order; none if there is no such topic.

    A letter that was sent in parts comes when its last part does.

    Parameters
    ----------
    torn
        At the end it gets the letters of which parts are missing.

    Raises
    ------
    IngestError
        Kafka cannot be read.
    """
    topics = Topics(kafka.bootstrap_servers, revealed(kafka.properties), ANSWER_S_MAX)
    if not topics.exists(kafka.dead_letter_topic):
        return
    homes = topics.homes([kafka.dead_letter_topic])
    lows, highs = topics.lows(homes), topics.highs(homes)
    joiner = Joiner()
    for home in homes:
        for found in messages(kafka, home, lows[home], highs[home]):
            yield from joiner.take(map(letter_of, found))
    torn += joiner.torn()
