"""The address of a model server, taken apart once."""

import ssl
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

_SAFE = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True)
class Address:
    """Where to connect to, and how requests there begin: `prefix` stands before every path."""

    host: str
    port: int
    is_tls: bool
    prefix: str
    authority: str
    _heads: dict[tuple[str, str], bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> tuple[str, int, bool]:
        """What connections are kept by."""
        return self.host, self.port, self.is_tls

    @cached_property
    def is_numeric(self) -> bool:
        """Whether no name has to be looked up."""
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    def head(self, method: str, path: str) -> bytes:
        """The first lines of a request, up to the headers that are its own."""
        known = self._heads.get((method, path))
        if known is None:
            text = f"{method} {self.prefix}{path} HTTP/1.1\r\nHost: {self.authority}\r\nUser-Agent: llmops-gateway\r\n"
            text += "Accept: */*\r\nAccept-Encoding: identity\r\n"
            known = self._heads[method, path] = text.encode("latin-1")
        return known


@lru_cache(1024)
def address_of(url: str) -> Address:
    """The address that a URL names; ValueError where it is none of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http address")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    is_tls = parts.scheme == "https"
    usual = 443 if is_tls else 80
    port = usual if parts.port is None else parts.port
    named = f"[{host}]" if ":" in host else host
    return Address(
        host=host,
        port=port,
        is_tls=is_tls,
        prefix=quote(parts.path.rstrip("/"), safe=_SAFE),
        authority=named if port == usual else f"{named}:{port}",
    )


@lru_cache(1)
def tls() -> ssl.SSLContext:
    """What servers' certificates are checked by: the machine's authorities."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
