"""`verify`: an independent look at whether Tiled holds what a part of the topic says, once, and nothing else.

It reads the topic (`spans`, and `tools.log`) without the group, decodes each document by itself (`documents`, `typed`),
keeps what they say as columns (`expected`, `rows`, `files`), reads Tiled as any client would (`tree`) and compares
(`compare`, `streams`, `matching`, `codes`, `arrays`, `external`, `metadata`). Nothing that decides what the service
writes is imported, which an import contract sees to: of the service it uses the settings, how Kafka's clients are made,
one HTTP request (`tiled.session`), the dead letters' headers, and the names of errors and outcomes.
"""

from .report import Counts, Report, RunReport, StreamReport
from .spans import NothingToRead, Wanted
from .tell import lines
from .verifier import Watch, verify

__all__ = ["Counts", "NothingToRead", "Report", "RunReport", "StreamReport", "Wanted", "Watch", "lines", "verify"]
