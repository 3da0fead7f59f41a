"""The dead-letter topic: looked at by a person, and counted."""
