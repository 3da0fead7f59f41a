"""Append prebuilt tables to Tiled, as fast as it takes them: the rows of a shape, one run's after the other's."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from tiled.client import from_uri

from tests.bench.programs import Stopwatch, api_key, arguments, tell
from tests.bench.shapes import SHAPES

ARROW_FILE = "application/vnd.apache.arrow.file"


def main() -> None:
    given = arguments()
    shape, rows, size = SHAPES[given["shape"]], given["rows"], given["batch"]
    node = from_uri(given["uri"], api_key=api_key())
    bodies = [_body(shape.table(np.arange(at, min(at + size, rows + 1)))) for at in range(1, rows + 1, size)]
    schema = shape.table(np.arange(1, 2)).schema
    tables = [node.create_appendable_table(schema, key=f"bare_{number}") for number in range(given["tables"])]
    http = node.context.http_client
    watch = Stopwatch()
    watch.start()
    for table in tables:
        link = table.item["links"]["partition"].format(index=0)
        for body in bodies:
            http.patch(link, content=body, headers={"Content-Type": ARROW_FILE}).raise_for_status()
    watch.stop()
    tell(given, **watch.result)


def _body(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


main()
