"""Values on their way to Tiled: batches of rows, columns of tables, blocks of arrays; nothing changes silently."""
