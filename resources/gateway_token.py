"""The token that opens the gateway's administrative port: made once, kept where only its owner reads it."""

import os
import secrets

from llmops_assets.specs.settings import Settings


def ensure_admin_token(settings: Settings) -> str:
    """The gateway's administrative token, made and kept in its file (mode 0600) where there is none yet."""
    if (found := settings.admin_token) is not None:
        return found
    path = settings.admin_token_path
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    written = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(token + "\n")
    try:
        # Whoever comes first decides: two that start at once must not hold two tokens.
        os.link(written, path)
    except FileExistsError:
        if (found := settings.admin_token) is not None:
            return found
        os.replace(written, path)
        return token
    finally:
        written.unlink(missing_ok=True)
    return token
