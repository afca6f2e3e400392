"""Which address a request comes from, behind the proxies that an installation names and no others."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
UNKNOWN = "unknown"
_MOST_HOPS = 20


def networks(names: str) -> tuple[Network, ...]:
    """Networks from a list with commas; ValueError naming what is none."""
    found = []
    for name in (part.strip() for part in names.split(",")):
        if not name:
            continue
        try:
            found.append(ip_network(name))
        except ValueError as error:
            raise ValueError(f"{name!r} is no network, such as 10.0.0.0/8 or 192.168.1.7: {error}") from error
    return tuple(found)


class Addresses:
    """Finds the client's address.

    `X-Forwarded-For` is read from the right, as each proxy adds the address that it was called from: the first that is
    not one of `trusted` is the client. What stands further left, the client may have written. From anybody but a
    trusted proxy the header means nothing.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self.trusted = trusted
        self._group = lru_cache(maxsize=10_000)(_group_of)
        self._group_of_peer = lru_cache(maxsize=10_000)(_group_of_text)

    def client(self, peer: str | None, forwarded: Iterable[str] = ()) -> str:
        """What a request is counted by: the client's IPv4 address, or the /64 network of an IPv6 one."""
        if not self.trusted:
            return self._group_of_peer(peer or "")
        address = _parsed(peer or "")
        if address is not None and self._is_trusted(address):
            hops = [hop for line in forwarded for hop in line.split(",")]
            for hop in hops[: -_MOST_HOPS - 1 : -1]:
                found = _parsed(hop)
                if found is None:
                    break
                address = found
                if not self._is_trusted(found):
                    break
        return UNKNOWN if address is None else self._group(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self.trusted if network.version == address.version)


def _group_of_text(peer: str) -> str:
    address = _parsed(peer)
    return UNKNOWN if address is None else _group_of(address)


def _group_of(address: Address) -> str:
    # Whoever has one IPv6 address has 2⁶⁴ of them.
    if address.version == 6:
        return f"{IPv6Network((int(address) >> 64 << 64, 64)).network_address}/64"
    return str(address)


@lru_cache(maxsize=10_000)
def _parsed(text: str) -> Address | None:
    """An address, with or without its port and brackets; IPv4 written as IPv6 is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
