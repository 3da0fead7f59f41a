"""Dead links in Markdown: `python -m tests.links FILES_OR_DIRS...`.

Looks at files and anchors, never at the network. Prints each link whose file or heading does not exist, and exits
with 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

_FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_INLINE = re.compile(r"\]\(\s*(<[^>\n]*>|(?:[^\s()]|\([^\s()]*\))*)(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[(?!\^)[^\]\n]+\]:\s*(<[^>\n]*>|\S+)", re.MULTILINE)
_HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']*)[\"']", re.IGNORECASE)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$|^(?=\S)(.+)\n {0,3}(?:=+|-{2,})[ \t]*$", re.MULTILINE)
_ANCHOR = re.compile(r"<[^>]*\b(?:id|name)=[\"']([^\"']+)[\"']|\{[^}\n]*#([\w-]+)[^}\n]*\}")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def main(arguments: list[str]) -> int:
    """Print the dead links of files and folders; return the exit status."""
    if not arguments:
        sys.stderr.write("usage: python -m tests.links FILES_OR_DIRS...\n")
        return 2
    dead = [line for argument in arguments for path in markdown(Path(argument)) for line in dead_links(path)]
    for line in dead:
        sys.stdout.write(line + "\n")
    return 1 if dead else 0


def markdown(path: Path) -> list[Path]:
    """Return the Markdown files of a folder, or the file itself."""
    return sorted(path.rglob("*.md")) if path.is_dir() else [path]


def dead_links(path: Path) -> Iterator[str]:
    """Yield a line for each link of a file that leads nowhere."""
    if not path.is_file():
        yield f"{path}: no such file"
        return
    text = _blank(path.read_text(encoding="utf-8"))
    for at, target in sorted(_links(text)):
        reason = _wrong(path, target)
        if reason:
            yield f"{path}:{text.count(chr(10), 0, at) + 1}: {target}: {reason}"


def _links(text: str) -> Iterator[tuple[int, str]]:
    for pattern in (_INLINE, _REFERENCE, _HTML):
        for found in pattern.finditer(text):
            yield found.start(1), found[1].removeprefix("<").removesuffix(">")


def _wrong(path: Path, target: str) -> str:
    if _ELSEWHERE.match(target):
        return ""
    name, _, anchor = target.partition("#")
    file = path.parent / unquote(name.partition("?")[0]) if name else path
    if name.startswith("/"):
        return "not relative"
    if not file.exists():
        return "no such file"
    if anchor and file.suffix == ".md" and unquote(anchor) not in anchors(file.resolve()):
        return "no such heading"
    return ""


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a file: its headings as GitHub spells them, and those written by hand."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = {by_id or by_brace for by_id, by_brace in _ANCHOR.findall(text)}
    seen: dict[str, int] = {}
    for marked, underlined in _HEADING.findall(text):
        slug = _slug(marked or underlined)
        seen[slug] = seen.get(slug, -1) + 1
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
    return frozenset(found)


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"<[^>]+>", "", heading))
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def _blank(text: str) -> str:
    """Blank out code and comments, in which brackets are no links; lines keep their numbers."""
    for pattern in (_FENCE, _COMMENT, _CODE):
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
