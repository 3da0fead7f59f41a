"""The fault run on real parts: `python -m tests.chaos --help`. What it does and how to read it: docs/chaos.md."""
