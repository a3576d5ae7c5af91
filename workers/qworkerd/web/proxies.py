"""A proxy in front of the dashboard: its headers are believed if they come from its address, and never else."""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from qworkerd.web.access import ALL, Access, Authorize, Redirect

Network = IPv4Network | IPv6Network
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: The key of the environment with the address of the peer, before a header has replaced it.
PEER = "qworker.peer"
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX")


def networks(texts: Iterable[str]) -> list[Network]:
    """Return networks from CIDR; raises ValueError."""
    return [ip_network(text) for text in texts]


def trust_header(name: str, cidrs: Iterable[str], actions: frozenset[str] = ALL) -> Authorize:
    """Return a function that takes the user from a header that a proxy in one of these networks has set.

    The proxy has to set or delete the header of every request, so that no client can send it.
    """
    trusted, key = networks(cidrs), environ_key(name)
    if not trusted:
        raise ValueError(f"header {name} needs the networks of the proxy that sets it")

    def authorize(environ: Mapping[str, Any]) -> Access | Redirect | None:
        user = environ.get(key, "").strip()
        return Access(user, actions) if user and is_in(environ, trusted) else None

    return authorize


def environ_key(name: str) -> str:
    """Return the key of a header in a WSGI environment."""
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"{name!r} is not the name of a header")
    return "HTTP_" + name.upper().replace("-", "_")


def is_in(environ: Mapping[str, Any], trusted: Iterable[Network]) -> bool:
    """Return whether the peer is in one of the networks."""
    try:
        peer = ip_address(str(environ.get(PEER, environ.get("REMOTE_ADDR", ""))).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in network for network in trusted)


class Forwarded:
    """Believes X-Forwarded-For, -Proto, -Host and -Prefix of a proxy in these networks; deletes those of others."""

    def __init__(
        self, app: Wsgi, trusted: Iterable[Network], is_page: Callable[[str], bool] = lambda _path: False
    ) -> None:  # fmt: skip
        """is_page: whether a path is that of a page: then the proxy has removed the prefix, even if it looks alike."""
        self._app = app
        self._is_page = is_page
        self._trusted = list(trusted)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        environ[PEER] = environ.get("REMOTE_ADDR", "")
        given = {key: environ.pop(key, "").strip() for key in FORWARDED}
        if is_in(environ, self._trusted):
            # The last entry is the one that this proxy has added.
            address = given["HTTP_X_FORWARDED_FOR"].rpartition(",")[2].strip()
            scheme = given["HTTP_X_FORWARDED_PROTO"].rpartition(",")[2].strip()
            host = given["HTTP_X_FORWARDED_HOST"].rpartition(",")[2].strip()
            prefix = given["HTTP_X_FORWARDED_PREFIX"].rstrip("/")
            if address:
                environ["REMOTE_ADDR"] = address
            if scheme in {"http", "https"}:
                environ["wsgi.url_scheme"] = scheme
            if host:
                environ["HTTP_HOST"] = host
            if prefix.startswith("/") and not prefix.startswith("//"):
                environ["SCRIPT_NAME"] = prefix
                environ["PATH_INFO"] = self._without(prefix, environ.get("PATH_INFO", ""))
        return self._app(environ, start_response)

    def _without(self, prefix: str, path: str) -> str:
        if self._is_page(path) or not f"{path}/".startswith(f"{prefix}/"):
            return path
        return path.removeprefix(prefix) or "/"
