"""The dead letters, for a person: counted (`list`), and one by one (`show`). Read without a group; nothing is changed.

A crash may deliver a letter twice: letters of one position (topic, partition, offset) and one code are one here.
"""

from .choice import Choice, Collected, WrongPosition, collect, position
from .tell import listed, shown

__all__ = ["Choice", "Collected", "WrongPosition", "collect", "listed", "position", "shown"]
