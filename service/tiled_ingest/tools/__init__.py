"""Commands beside `run`: check, verify, replay, redrive."""
