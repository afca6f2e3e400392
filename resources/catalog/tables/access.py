"""Who may call, and what each has used."""

import sqlalchemy as sa

from resources.catalog.tables.columns import UtcDateTime, metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("password_hash", sa.String, comment="argon2id; null: logs in at a provider alone"),
    sa.Column("roles", sa.JSON, nullable=False, comment="roles of the policy, given here"),
    sa.Column("issuer", sa.String, comment="the provider that the user logs in at; null: a user of ours"),
    sa.Column("subject", sa.String, comment="who it is there"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column(
        "failures", sa.Integer, nullable=False, server_default="0", comment="wrong passwords since the last right"
    ),
    sa.Column("failed_at", UtcDateTime),
    sa.Column("revision", sa.Integer, nullable=False, comment="sessions of an earlier one have ended"),
    sa.UniqueConstraint("issuer", "subject"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("sha256", sa.String, primary_key=True, comment="of what the browser holds"),
    sa.Column("user", sa.String, nullable=False, index=True),
    sa.Column("roles", sa.JSON, nullable=False, comment="those that the provider said, beside the user's own"),
    sa.Column("user_revision", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
)

logins = sa.Table(
    "logins",
    metadata,
    sa.Column("sha256", sa.String, primary_key=True, comment="of the state that was sent to the provider"),
    sa.Column("browser", sa.String, nullable=False, comment="SHA-256 of what the browser holds that began it"),
    sa.Column("nonce", sa.String, nullable=False),
    sa.Column("verifier", sa.String, nullable=False, comment="of PKCE"),
    sa.Column("target", sa.String, nullable=False, comment="the page that was asked for"),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True, comment="the part of the key that may be shown"),
    sa.Column("sha256", sa.String, nullable=False, unique=True, comment="of the whole key, which is stored nowhere"),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("team", sa.String),
    sa.Column("role", sa.String, nullable=False, comment="a role of the policy"),
    sa.Column("endpoints", sa.JSON, comment="names of endpoints; null: all that the role may call"),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("monthly_tokens", sa.BigInteger),
    sa.Column("note", sa.String, nullable=False, server_default=""),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revoked_by", sa.String),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column(
        "revision", sa.Integer, nullable=False, comment="counts the changes, by which a gateway sees that one is"
    ),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.String, primary_key=True, comment="in UTC, YYYY-MM-DD"),
    sa.Column("key", sa.String, primary_key=True, comment="id of an API key, subject of a token, or empty"),
    sa.Column("team", sa.String, primary_key=True, comment="empty for none"),
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("model_ref", sa.String, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False, comment="of these, those with a status of 400 or above"),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("estimated_tokens", sa.BigInteger, nullable=False, comment="of these, what no server counted"),
    sa.Column("refused", sa.BigInteger, nullable=False, server_default="0", comment="others, which reached no model"),
    sa.Index("ix_usage_key_day", "key", "day"),
)
