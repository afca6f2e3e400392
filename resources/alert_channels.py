"""Delivers an alert: to the log, to a webhook, by e-mail."""

import http.client
import json
import logging
import os
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

from llmops_assets.specs.alerts import Channel, LogChannel, SmtpChannel, WebhookChannel
from resources.catalog.alerts import Alert, Event

log = logging.getLogger("llmops.alerts")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Undelivered(RuntimeError):
    """A message did not arrive; the text holds no secret."""


def headline(alert: Alert, event: Event) -> str:
    """One line that says what it is about."""
    state = "RESOLVED" if event == "resolved" else alert.severity.upper()
    return f"[{state}] {alert.kind}: {alert.subject}"


def deliver(channel: Channel, alert: Alert, event: Event, environment: Mapping[str, str] = os.environ) -> None:
    """Send a message; raises Undelivered with why it did not arrive, without the secret of the channel."""
    if isinstance(channel, LogChannel):
        level = logging.INFO if event == "resolved" else _LEVELS[alert.severity]
        log.log(level, "%s: %s", headline(alert, event), alert.text)
    elif isinstance(channel, WebhookChannel):
        _post(channel, alert, event, environment)
    else:
        _mail(channel, alert, event, environment)


def _secret(name: str, channel: Channel, environment: Mapping[str, str]) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise Undelivered(f"channel {channel.name}: the environment has no {name}")
    return value


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook is asked where it is written to be: its secret address goes nowhere else."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _post(channel: WebhookChannel, alert: Alert, event: Event, environment: Mapping[str, str]) -> None:
    url = _secret(channel.url_env, channel, environment)
    if not url.startswith(("http://", "https://")):
        raise Undelivered(f"channel {channel.name}: {channel.url_env} is no http address")
    body: dict[str, Any] = {"text": f"{headline(alert, event)}\n{alert.text}"}
    if channel.fields:
        body |= {
            "event": event,
            "id": alert.id,
            "kind": alert.kind,
            "subject": alert.subject,
            "severity": alert.severity,
            "first_at": alert.first_at.isoformat(),
        }
    data = json.dumps(body, ensure_ascii=False).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=channel.timeout_seconds) as response:
            response.read(1024)
    except urllib.error.HTTPError as error:
        raise Undelivered(f"channel {channel.name}: the webhook answered {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The message of urllib may name the address, and the address is a secret.
        raise Undelivered(f"channel {channel.name}: {type(error).__name__}: {_without(error, url)}") from None


def _without(error: Exception, secret: str) -> str:
    text = str(getattr(error, "reason", error))
    for piece in (secret, secret.partition("://")[2].partition("/")[2]):
        text = text.replace(piece, "…") if piece else text
    return text


def _mail(channel: SmtpChannel, alert: Alert, event: Event, environment: Mapping[str, str]) -> None:
    message = EmailMessage()
    # What a user named may hold anything: a header is one line.
    message["Subject"] = " ".join(headline(alert, event).split())[:200]
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.recipients)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=channel.sender.rpartition("@")[2])
    message["X-LLMOps-Alert"] = f"{alert.id} {event}"
    message.set_content(f"{alert.text}\n\nsince {alert.first_at:%Y-%m-%d %H:%M} UTC, alert {alert.id}\n")
    password = _secret(channel.password_env, channel, environment) if channel.password_env else None
    try:
        with _connected(channel) as server:
            if channel.username and password:
                server.login(channel.username, password)
            refused = server.send_message(message)
    except OSError as error:  # every SMTPException and SSLError is one
        text = str(error).replace(password, "…") if password else str(error)
        raise Undelivered(f"channel {channel.name}: {type(error).__name__}: {text}") from None
    if refused:
        raise Undelivered(f"channel {channel.name}: refused for {', '.join(sorted(refused))}")


def _connected(channel: SmtpChannel) -> smtplib.SMTP:
    if channel.tls == "implicit":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(channel.host, channel.port, timeout=channel.timeout_seconds, context=context)
    server = smtplib.SMTP(channel.host, channel.port, timeout=channel.timeout_seconds)
    if channel.tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


Deliver = Callable[[Channel, Alert, Event], None]
