"""Runs: which documents are whose, the automaton of a run, its streams, and what is to be done for it next."""
