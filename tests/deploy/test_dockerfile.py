"""The Dockerfile on paper; `test_image` builds from it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.deploy.tools import ROOT, run

DOCKERFILE = ROOT / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    run([Path(sys.executable).with_name("hadolint"), DOCKERFILE])


def test_what_is_pinned_is_pinned() -> None:
    text = DOCKERFILE.read_text()
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    (ours,) = re.findall(r"^ARG UV_VERSION=(\S+)$", text, re.MULTILINE)
    (makes,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert ours == makes
