"""What the assets are made of: datasets, trainings, models and what is said of them."""

import sqlalchemy as sa

from resources.catalog.tables.columns import StoredPath, UtcDateTime, metadata

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("key", sa.String, primary_key=True, comment="name@version"),
    sa.Column("name", sa.String, nullable=False, index=True),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False, comment="DatasetSpec"),
    sa.Column("digest", sa.String, nullable=False, comment="SHA-256 over the registered files"),
    sa.Column("status", sa.String, nullable=False, default="active"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False, comment="last time someone asked for its ingestion"),
)

dataset_pointers = sa.Table(
    "dataset_pointers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, index=True, comment="of the dataset"),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False, comment="what it points to from here on"),
    sa.Column("action", sa.String, nullable=False, comment="tag or rollback"),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("by", sa.String, nullable=False),
)

dataset_drafts = sa.Table(
    "dataset_drafts",
    metadata,
    sa.Column("key", sa.String, primary_key=True, comment="name@version"),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("fields", sa.JSON, nullable=False, comment="fields of the DatasetSpec that were given"),
    sa.Column("reason", sa.String, nullable=False, comment="why there are no files yet"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

recipes = sa.Table(
    "recipes",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="TrainJobSpec less dataset_ref"),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

training_requests = sa.Table(
    "training_requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("recipe", sa.String, nullable=False),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("reported_at", UtcDateTime, comment="when the request became an event in the asset graph"),
)

base_models = sa.Table(
    "base_models",
    metadata,
    sa.Column("ref", sa.String, primary_key=True, comment="as a spec names it: hf:… or a plain name"),
    sa.Column("family", sa.String, nullable=False),
    sa.Column("path", StoredPath, nullable=False, comment="local folder or hub id"),
    sa.Column("content_hash", sa.String),
    sa.Column("license", sa.String),
    sa.Column("state", sa.String, nullable=False, comment="draft, approved or archived"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("approved_at", UtcDateTime),
    sa.Column("approved_by", sa.String),
)

named_models = sa.Table(
    "named_models",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("storage_uri", sa.String, nullable=False),
    sa.Column("family", sa.String, nullable=False),
    sa.Column("license", sa.String),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False, comment="what else was said of it"),
    sa.Column("base_ref", sa.String, comment="the base model that it is, once its files were looked at"),
    sa.Column("reason", sa.String, nullable=False, comment="why its files were not looked at yet"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

model_statements = sa.Table(
    "model_statements",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String, nullable=False, comment="name of the registered model"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("gap", sa.String, nullable=False, comment="what lineage cannot tell, by its name in the dossier"),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("author", sa.String, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_model_statements_model", "model", "version"),
)

retraining_rules = sa.Table(
    "retraining_rules",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="RetrainingRule"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

retrainings = sa.Table(
    "retrainings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("rule", sa.String, nullable=False, index=True),
    sa.Column("cause", sa.String, nullable=False, comment="what it was asked for upon: once each"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("recipe", sa.String, nullable=False),
    sa.Column("reviewed_until", UtcDateTime, comment="reviews up to then are in the dataset; null: none are"),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("rule", "dataset"),
)

record_digests = sa.Table(
    "record_digests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("record", sa.String, nullable=False, index=True, comment="asset and partition, as the file is named"),
    sa.Column("sha256", sa.String, nullable=False, comment="of the record before it is sealed"),
)
