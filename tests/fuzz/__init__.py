"""Hostile input: mutated messages against decoding and the automaton.

`python -m tests.fuzz --messages 1000000` is the long run; with `--guided` a coverage-guided fuzzer chooses what to keep
(see docs/fuzzing.md). A short one is in the gate, and so is everything that was ever found (`corpus/`).
"""
