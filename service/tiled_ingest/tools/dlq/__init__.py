"""The dead letters, for a person: counted (`list`), one by one (`show`), and put into Tiled (`redrive`).

They are read without a group; nothing of them is changed.

A crash may deliver a letter twice: letters of one position (topic, partition, offset) and one code are one here.
"""

from .choice import Choice, Collected, WrongPosition, collect, position
from .redrive import Redriven, planned
from .tell import listed, redriven, shown

__all__ = [
    "Choice",
    "Collected",
    "Redriven",
    "WrongPosition",
    "collect",
    "listed",
    "planned",
    "position",
    "redriven",
    "shown",
]
