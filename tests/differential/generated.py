"""Runs that nobody thought of: well-formed documents drawn by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .compose import Composer, key
from .recorder import Documents

NAMES = st.sampled_from(["a", "b2", "det_x", "Motor", "with-dash", "with space", "aü", "time", "seq_num"])
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64).filter(
    lambda x: x != int(x) if abs(x) < 2**53 else 1
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": FLOATS,
    "string": TEXTS,
    "boolean": st.booleans(),
    "array": st.lists(FLOATS, min_size=3, max_size=3),
}


def _metadata(*, infinities: bool) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=infinities) | TEXTS,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz_", min_size=1, max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    )


@st.composite
def runs(draw: st.DrawFn, *, infinities: bool) -> Documents:
    """One run: up to three streams, with keys of all kinds, their events interleaved; `infinities` in its metadata."""
    run = Composer(extra=draw(_metadata(infinities=infinities)))
    streams = draw(st.lists(st.sampled_from(["primary", "baseline", "other"]), unique=True, max_size=3))
    # Of one kind in all streams: TiledWriter's tables describe a key as the latest descriptor of any stream does.
    kind_of = draw(st.dictionaries(NAMES, st.sampled_from(sorted(VALUES)), min_size=1, max_size=7))
    kinds: dict[str, dict[str, str]] = {}
    for stream in streams:
        names = draw(st.lists(st.sampled_from(sorted(kind_of)), unique=True, min_size=1, max_size=5))
        kinds[stream] = {name: kind_of[name] for name in names}
        keys = {name: key(kind, [3] if kind == "array" else []) for name, kind in kinds[stream].items()}
        run.descriptor(keys, name=stream, object_keys={"dev": list(keys)}, configuration={}, hints={})
    for stream in draw(st.lists(st.sampled_from(streams), max_size=8)) if streams else []:
        run.event({name: draw(VALUES[kind]) for name, kind in kinds[stream].items()}, name=stream)
    return run.stop()
