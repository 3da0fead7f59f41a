"""What an answer, or the lack of one, says: may the request have been applied, may it be sent again.

Nothing here retries or waits. Every text that leaves this module is short, printable, without the API key.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from tiled_ingest.core.writes import PASSING, Denied, Exists, Missing, Outcome, Rejected, Unknown, Unprocessed

DETAIL_CHARS_MAX = 300  # enough for a sentence; an answer may quote what was sent
RETRY_AFTER_S_MAX = 300.0  # a proxy's slip must not put us to sleep for a day

# Raised while a connection is sought or made: not a byte of the request has left.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# What FastAPI, and so Tiled, says of an address that it does not know at all; of a node it says "No such entry".
_NO_ROUTE = "Not Found"
_LOCKED = "database is locked"  # SQLite gave up before it wrote; the transaction is rolled back


def clean(text: str, secret: str | None = None) -> str:
    """Cut a text for a log line: printable, at most `DETAIL_CHARS_MAX` characters, the secret blotted out."""
    if secret:
        text = text.replace(secret, "***")
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * DETAIL_CHARS_MAX])
    return " ".join(printable.split())[:DETAIL_CHARS_MAX]


def of_error(error: httpx.HTTPError, secret: str | None) -> Outcome:
    """Translate a request that got no answer."""
    detail = clean(f"{type(error).__name__}: {error}", secret)
    if isinstance(error, _NOT_SENT):
        return Unprocessed(detail)
    return Unknown(detail)


def of_server_exception(error: Exception, secret: str | None) -> Outcome:
    """Translate what an application in this process raised where a server would have answered 500."""
    text = f"{type(error).__name__}: {error}"
    if _LOCKED in text:
        return Unprocessed(clean(text, secret))
    return Unknown(clean(text, secret), 500)


def of_status(status: int, headers: Mapping[str, str], body: bytes, secret: str | None) -> Outcome | None:
    """Translate an answer's status; `None` for a success.

    Parameters
    ----------
    body
        The answer's body, or its beginning where the rest was not read.
    """
    if 200 <= status < 300 or status == 101:  # 101: the websocket that was asked for
        return None
    said = _detail(body)
    detail = clean(f"{status} {said}", secret)
    if status >= 500:
        return _of_5xx(status, headers, body, detail)
    if status == 429:
        return Unprocessed(detail, retry_after_s(headers))
    if status == 409:
        return Exists()
    if status == 404:
        return _of_404(said, detail)
    return _refusal(status, detail, tileds=bool(said))


def _of_404(said: str, detail: str) -> Outcome:
    # A proxy answers so while Tiled is away, and for every node: that must not be taken for a node that is gone.
    if said in ("", _NO_ROUTE):
        return Unknown(f"{detail}: not Tiled's own words; is Tiled behind tiled.uri?", 404)
    return Missing(detail)


def _of_5xx(status: int, headers: Mapping[str, str], body: bytes, detail: str) -> Outcome:
    # A bare 503 may come from anywhere on the way back; with Retry-After, somebody declined on purpose.
    if status == 503 and "retry-after" in headers:
        return Unprocessed(detail, retry_after_s(headers))
    if status == 500 and _LOCKED.encode() in body:
        return Unprocessed(detail)
    return Unknown(detail, status)


def _refusal(status: int, detail: str, *, tileds: bool) -> Outcome:
    if status in (401, 403):
        return Denied(detail, status)
    if status < 400:  # followed, a redirected POST would become a GET and look like success
        return Denied(f"{detail}: redirected; name the final address in tiled.uri", status)
    if status == 413:  # proxies have such limits
        return Rejected(detail, status)
    # 408 and 425 say nothing about what was written, nor does what Tiled did not say itself: it explains each in JSON.
    if status in PASSING or not tileds:
        return Unknown(detail, status)
    return Rejected(detail, status)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, by number or by date; `None` if it says nothing."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        return _seconds_until(text)
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return None
    left_s = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(left_s, 0.0), RETRY_AFTER_S_MAX)


def _detail(body: bytes) -> str:
    """Return what Tiled says in its JSON answers; nothing of a proxy's HTML page."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        return ""
    detail = answer.get("detail", "") if isinstance(answer, dict) else ""
    return "; ".join(map(_complaint, detail)) if isinstance(detail, list) else str(detail)


def _complaint(item: Any) -> str:
    # pydantic's complaints quote the whole input: that is the document's, so only place and message are told.
    if not isinstance(item, dict):
        return ""
    place = ".".join(str(part) for part in item.get("loc", ()))
    return f"{place}: {item.get('msg', '')}"
