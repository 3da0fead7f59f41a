"""Exactly once into Tiled: appends, switches and stores of our own, what became of a lost reply, how long to try."""
