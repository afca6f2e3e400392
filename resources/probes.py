"""Asks whether something answers over HTTP, without a proxy that the environment names."""

from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

_open = build_opener(ProxyHandler({})).open


def answers(url: str, seconds: float = 3.0) -> str | None:
    """None where a page answers 200; else why it does not."""
    try:
        with _open(url, timeout=seconds):
            return None
    except HTTPError as error:
        return f"it answers {error.code}"
    except (URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)
