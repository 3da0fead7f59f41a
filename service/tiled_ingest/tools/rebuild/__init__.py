"""Whole runs written into Tiled anew, through the service's own engine: for `dlq redrive` and `replay`.

A run's documents are gathered (`spool`), put in order, and given to an engine of their own as if they were a log that
holds this run and nothing else (`builder`). Its claim is later than every claim on the run so far, so no dataset that
anyone else made is appended to: at the run's end each table is filled anew and shown in one switch. Until then readers
see what they saw, and the run is called what it was called; a crash leaves it so, and the next attempt begins anew.
"""

from .builder import Builder, Built, Place
from .cases import Case, Judge, Manner
from .connect import connected
from .places import Places
from .plan import Plan, Rebuild
from .spool import Spool, Spooled, Stranger

__all__ = [
    "Builder",
    "Built",
    "Case",
    "Judge",
    "Manner",
    "Place",
    "Places",
    "Plan",
    "Rebuild",
    "Spool",
    "Spooled",
    "Stranger",
    "connected",
]
