"""The benchmark: the service beside its peers, on a real broker and a real Tiled, in one go (`make bench`).

`shapes` and `messages` make documents, `topics` fills topics with them; `programs` are the peers, each a process of its
own; `arms` runs one of them (or the service) and measures it; `rows` are the lines of the table; `report` writes it.
"""
