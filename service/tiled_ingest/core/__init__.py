"""Pure decisions: no client, clock, thread or logger. `engine` is the only door."""
