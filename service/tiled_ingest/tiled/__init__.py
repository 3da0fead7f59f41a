"""Tiled at its edge: one request function, and the writes of the layout."""
