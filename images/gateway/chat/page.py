"""The chat page, with a policy that lets nothing run in it but its own script."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from images.gateway.call import Answer, Call
from images.gateway.gateway import Gateway

_FILE = Path(__file__).with_name("chat.html")


@cache
def page() -> tuple[bytes, dict[str, str]]:
    """The page and its headers."""
    text = _FILE.read_text(encoding="utf-8")
    hashes = {tag: _hash(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]) for tag in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def chat_page(_gateway: Gateway, _call: Call) -> Answer:
    """GET /chat: the page itself holds nothing of anybody; what it asks for asks for a key like any other client."""
    body, headers = page()
    return Answer(body=body, content_type="text/html; charset=utf-8", headers=dict(headers))
