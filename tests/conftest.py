"""Fixtures for all tests."""

from tests.rig.fixtures import broker, postgres, tiled_duckdb, tiled_postgres, tiled_server, topic

__all__ = ["broker", "postgres", "tiled_duckdb", "tiled_postgres", "tiled_server", "topic"]
