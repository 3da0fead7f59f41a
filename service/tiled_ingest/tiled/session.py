"""One HTTP request to Tiled: sent once, and its result said in the outcomes of `core.writes`.

Tiled's own client retries creates and metadata updates, and so hides that they may have been applied: so this
goes through the context's HTTP client and leaves every retry to the engine.
"""

import base64
import io
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa

from tiled_ingest.core.writes import Done, Outcome, Path, Rejected, Unknown
from tiled_ingest.tiled import answers
from tiled_ingest.tiled.connect import Connected, Connection, given, parse

Params = Mapping[str, str | int | Sequence[str]]


class Session:
    """A way to one node of a Tiled server; paths are below it. May be used from several threads at once."""

    def __init__(self, way: Connection | Connected) -> None:
        self._way = way

    @classmethod
    def at(cls, uri: str, api_key: str | None = None, *, timeout_s: float = 30.0) -> "Session":
        """Make a session, asking nothing of Tiled: while it is away, every request is `Unprocessed`.

        Parameters
        ----------
        uri
            The server, or a node of it (`http://host/api/v1/metadata/raw`).
        api_key
            How we log in; by default the address's `api_key=...`, or the variable `TILED_API_KEY`.
        timeout_s
            How long one request may stand still, in seconds.

        Raises
        ------
        Forbidden
            The address or the key cannot be used.
        """
        return cls(Connection(parse(uri, api_key, timeout_s)))

    @classmethod
    def from_context(cls, context: Any, path: Path = ()) -> "Session":
        """Go through a context as it is: its HTTP client, its login, maybe an application in this process."""
        return cls(given(context, path))

    def __repr__(self) -> str:
        where = self._way.address.uri if isinstance(self._way, Connection) else "a given context"
        return f"<Session to {where}>"

    def close(self) -> None:
        """Close the connections that are ours; a given context is left alone."""
        if isinstance(self._way, Connection):
            self._way.close()

    def request(
        self,
        method: str,
        route: str,
        path: Path | None = (),
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response | Outcome:
        """Send one request, once; return the answer if it is a success, else what its failure means.

        Parameters
        ----------
        route
            The part of the address before the node's path: `metadata`, `table/partition`.
        path
            Keys below the session's node, unquoted; `None` for a route without a node.
        """
        there = self._way.get() if isinstance(self._way, Connection) else self._way
        if not isinstance(there, Connected):
            return there
        if path is not None and not all(map(_usable, path)):
            return Rejected("a node's key may not be empty, nor hold a slash", 422)
        # The root's address ends with a slash: without it the answer would be a redirection.
        node = "" if path is None else f"/{_quoted(there.base + path)}"
        url = f"{there.context.api_uri}{route}{node}"
        return _send(there, method, url, params=params, headers=headers, content=content)

    def server_info(self) -> httpx.Response | Outcome:
        """Ask Tiled who it is (JSON); needs no login."""
        return self.request("GET", "", None, headers={"Accept": "application/json"})

    def subscribe(self, path: Path) -> httpx.Response | Outcome:
        """Ask to be told of what comes to a node, as those who watch a run do, and hang up at once."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        return self.request("GET", "stream/single", path, headers={**handshake, "Sec-WebSocket-Key": key})


def understood(answer: httpx.Response | Outcome, read: Callable[[bytes], Any]) -> Outcome:
    """Return `Done` with what `read` finds in a success. One that cannot be understood confirms nothing."""
    if not isinstance(answer, httpx.Response):
        return answer
    try:
        return Done(read(answer.content))
    except (ValueError, TypeError, LookupError, AttributeError, pa.ArrowException) as error:
        return Unknown(f"the answer cannot be understood ({type(error).__name__})", answer.status_code)


def _send(there: Connected, method: str, url: str, **parts: Any) -> httpx.Response | Outcome:
    client = there.context.http_client
    try:
        # Not followed: a redirected POST would become a GET, and look like a success.
        response = client.send(client.build_request(method, url, **parts), stream=True, follow_redirects=False)
        body = _read(response)
    except httpx.HTTPError as error:
        return answers.of_error(error, there.secret)
    except Exception as error:  # an application in this process raises whatever became its 500
        if not hasattr(client, "app"):
            raise
        return answers.of_server_exception(error, there.secret)
    failed = answers.of_status(response.status_code, response.headers, body, there.secret)
    return _whole(response, body) if failed is None else failed


def _read(response: httpx.Response) -> bytes:
    """Read the answer, in one piece of memory; of a server's error only the beginning, and then hang up.

    The keys of ten million rows are 160 MB; httpx would gather an answer's parts, and hold them twice to join them.

    After a 500 Tiled's server closes the connection, a moment later: the next request on it would fail as if
    it might have been processed. Closed by us, before the pool has it back, it is never used again.
    """
    if response.status_code < 500:
        whole = io.BytesIO()
        whole.writelines(response.iter_bytes())
        return whole.getvalue()  # without a copy
    try:
        return next(response.iter_bytes(), b"")
    except httpx.HTTPError:  # the status is known; its explanation is not needed
        return b""
    finally:
        if "network_stream" in response.extensions:
            response.extensions["network_stream"].close()
        response.close()


def _whole(response: httpx.Response, body: bytes) -> httpx.Response:
    """Return the answer with its body, which is decoded already."""
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=body)


def _usable(key: str) -> bool:
    return bool(key) and "/" not in key


def _quoted(path: Path) -> str:
    return "/".join(map(_segment, path))


def _segment(key: str) -> str:
    # Keys of dots only would be taken for steps up the path.
    return key.replace(".", "%2E") if key.strip(".") == "" else quote(key, safe="")
