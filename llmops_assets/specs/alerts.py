"""Where people are told of what goes wrong: a log, a webhook, e-mail; secrets are named, never written."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmops_assets.specs.base import Bool, Float, Int, Part, Text

AlertKind = Literal["run", "check", "drift", "decision", "breaker", "intent", "retraining", "daemon"]
Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")


class _Channel(Part):
    name: Text
    kinds: list[AlertKind] | None = Field(default=None, description="Of these only; left out, of all.")
    at_least: Severity = Field(default="info", description="The least severe that it is told of.")

    def wants(self, kind: str, severity: Severity) -> bool:
        """Whether alerts of that kind and severity go there."""
        return (self.kinds is None or kind in self.kinds) and SEVERITIES.index(severity) >= SEVERITIES.index(
            self.at_least
        )


class LogChannel(_Channel):
    """A line in the log of the process that looks, by Python's logging."""

    type: Literal["log"]


class WebhookChannel(_Channel):
    """A JSON object by POST: `text`, as Slack and Mattermost take it, and the alert's fields beside it."""

    type: Literal["webhook"]
    url_env: Text = Field(description="Environment variable that holds the address: it is a secret.")
    timeout_seconds: Float = Field(default=10.0, gt=0)
    fields: Bool = Field(default=True, description="Send the alert's fields beside the text; Slack refuses them.")


class SmtpChannel(_Channel):
    """An e-mail."""

    type: Literal["smtp"]
    host: Text
    port: Int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    sender: Text
    recipients: list[Text] = Field(min_length=1)
    username: Text | None = None
    password_env: Text | None = Field(default=None, description="Environment variable that holds the password.")
    timeout_seconds: Float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "SmtpChannel":
        if (self.username is None) != (self.password_env is None):
            raise ValueError("username and password_env come together")
        if self.username is not None and self.tls == "none":
            raise ValueError("tls: none would send the password in the clear")
        for address in (self.sender, *self.recipients):
            if "@" not in address or any(c in address for c in "\r\n"):
                raise ValueError(f"{address!r} is no e-mail address")
        return self


Channel = Annotated[LogChannel | WebhookChannel | SmtpChannel, Field(discriminator="type")]


class AlertPolicy(Part):
    """What people are told of by themselves."""

    channels: list[Channel] = Field(default_factory=lambda: [LogChannel(type="log", name="log")])
    stuck_intent_minutes: Float = Field(default=120.0, gt=0, description="Wanted for longer and not done.")
    heartbeat_seconds: Float = Field(default=300.0, gt=0, description="Without a sign the daemon counts as dead.")
    quiet_minutes: Float = Field(
        default=60.0, ge=0, description="What comes back within it is the same alert, without another message."
    )

    @model_validator(mode="after")
    def _named_once(self) -> "AlertPolicy":
        names = [channel.name for channel in self.channels]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"channels: two are named {min(twice)!r}")
        return self
