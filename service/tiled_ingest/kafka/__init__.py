"""Kafka at its edge: records in, commits and dead letters out."""
