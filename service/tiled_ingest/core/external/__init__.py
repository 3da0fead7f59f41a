"""Data in files: resources and datums, what the log says of them, and the nodes that point to them."""
