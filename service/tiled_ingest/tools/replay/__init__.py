"""Documents from files, or from a part of a topic, into Tiled, through the service's own engine; harmless to repeat."""

from .replaying import Replayed, prepared
from .sources import FileSource, Source, TopicSource, WrongSource, source
from .tell import told

__all__ = ["FileSource", "Replayed", "Source", "TopicSource", "WrongSource", "prepared", "source", "told"]
