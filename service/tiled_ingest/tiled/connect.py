"""How a Tiled context comes to be: an address is split once, and the context is built when Tiled is there."""

import threading
from dataclasses import dataclass, field
from typing import Any

import httpx
from tiled.client.context import Context
from tiled.client.transport import Transport

from tiled_ingest.core.errors import Forbidden
from tiled_ingest.core.writes import Denied, Outcome, Path, Unprocessed
from tiled_ingest.tiled import answers

CONNECTIONS_MAX = 16  # more than the requests that the engine has under way at once
CONNECT_S_MAX = 5.0  # a host that does not answer a connect attempt by then is away
# uvicorn hangs up on connections that were idle for 5 s. A request that meets that moment fails as if it
# might have been processed: so ours are given up well before.
KEEPALIVE_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where Tiled is: its address without secrets, and the API key, which no text shows."""

    uri: str
    api_key: str | None = field(repr=False)
    timeout_s: float = 30.0

    @property
    def timeout(self) -> httpx.Timeout:
        """How long each phase of one request may take."""
        brief = min(CONNECT_S_MAX, self.timeout_s)
        return httpx.Timeout(self.timeout_s, connect=brief, pool=brief)


def parse(uri: str, api_key: str | None, timeout_s: float) -> Address:
    """Split the key from the address, and refuse what would fail only later, or show a secret.

    Raises
    ------
    Forbidden
        The address or the key cannot be used; the text does not quote them.
    """
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL as error:
        raise Forbidden("tiled.uri is not an address") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Forbidden("tiled.uri must begin with http:// or https:// and name a host")
    if url.userinfo:  # httpx would log it, and send it instead of the key
        raise Forbidden("tiled.uri must not hold a user name or password: use tiled.api_key")
    key = api_key or url.params.get("api_key")
    return Address(str(url.copy_with(query=None, fragment=None)), _checked(key), timeout_s)


def _checked(api_key: str | None) -> str | None:
    key = (api_key or "").strip()  # files end with a newline
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Forbidden("tiled.api_key holds characters that no API key has")
    return key or None


@dataclass(frozen=True, slots=True)
class Connected:
    """A context, the path of the node that all paths begin at, and the key that no text may show."""

    context: Any = field(repr=False)  # its own text asks the server who we are, and shows half the key
    base: Path
    secret: str | None = field(repr=False)


def given(context: Any, path: Path) -> Connected:
    """Take a context that exists, as it is: its HTTP client, its login, an application in this process."""
    authorization = context.http_client.headers.get("Authorization", "")
    return Connected(context, tuple(path), authorization.rpartition(" ")[2] or None)


class Connection:
    """The context of an address, built at the first request that finds Tiled there; for several threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connecting = threading.Lock()
        self._attempts = 0
        self._result: Connected | Outcome = Unprocessed("not connected yet")

    def get(self) -> Connected | Outcome:
        """Return the context; or why there is none yet, never ambiguous: only its name was asked."""
        if isinstance(self._result, Connected):
            return self._result
        seen = self._attempts
        with self._connecting:
            # Those who waited for somebody else's vain attempt share its result.
            if self._attempts == seen:
                self._attempts += 1
                self._result = _connect(self.address)
            return self._result

    def close(self) -> None:
        """Close its idle connections."""
        if isinstance(self._result, Connected):
            self._result.context.http_client.close()


def _connect(address: Address) -> Connected | Outcome:
    # The context's constructor tries again for up to 45 s: it is called only when somebody answers.
    absent = _knock(address)
    if absent is not None:
        return absent
    try:
        context, path = Context.from_any_uri(address.uri, api_key=address.api_key, timeout=address.timeout)
    except httpx.HTTPError as error:
        return Unprocessed(answers.clean(f"Tiled does not say who it is: {error}", address.api_key))
    except (ValueError, KeyError):  # the answer is no description of a Tiled server
        return Unprocessed("what answers at tiled.uri is not Tiled")
    _equip(context, address.timeout)
    return given(context, tuple(path))


def _knock(address: Address) -> Outcome | None:
    try:
        response = httpx.get(address.uri, timeout=address.timeout, follow_redirects=False)
    except httpx.HTTPError as error:
        return Unprocessed(answers.clean(f"{type(error).__name__}: {error}", address.api_key))
    if response.status_code >= 500 or response.status_code == 429:
        return Unprocessed(f"Tiled answers {response.status_code}", answers.retry_after_s(response.headers))
    if response.status_code == 403:  # 401 is Tiled's answer to a node's address without a key, which this is
        return Denied("403 before any key was shown: a proxy?", 403)
    return None


def _equip(context: Any, timeout: httpx.Timeout) -> None:
    """Give the context an HTTP client with our limits: no cache, no redirects, brief idle connections."""
    limits = httpx.Limits(
        max_connections=CONNECTIONS_MAX,
        max_keepalive_connections=CONNECTIONS_MAX,
        keepalive_expiry=KEEPALIVE_S_MAX,
    )
    old = context.http_client
    transport = Transport(cache=None, limits=limits)
    context.http_client = httpx.Client(
        transport=transport, headers=old.headers, timeout=timeout, follow_redirects=False
    )
    old.close()
