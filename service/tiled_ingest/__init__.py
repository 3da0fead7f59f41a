"""tiled-ingest: Bluesky documents from Kafka to Tiled, exactly once."""

__version__ = "0.1.0.dev0"
