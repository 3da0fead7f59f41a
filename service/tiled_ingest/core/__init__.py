"""Pure decisions: no client, clock, thread or logger. `engine` is the only door.

`decoding` makes documents of bytes, `runs` knows whose they are, `rows` and `external` what they mean for Tiled, and
`writing` brings that there exactly once.
"""
