"""Writing without Kafka: a callback for the RunEngine that drives the same engine in the caller's process."""

from .writer import TiledWriter

__all__ = ["TiledWriter"]
