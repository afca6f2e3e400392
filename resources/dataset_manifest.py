"""What a stored version of a table consists of: its manifest, with the chunks that its rows are in."""

from datetime import datetime
from typing import NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from llmops_assets.specs.canonical import digest


class Chunk(BaseModel):
    """Some neighbouring rows. `sha256` is of the plain Parquet bytes, whether or not they are sealed on the disk.

    So equal rows are stored once, under any key and after a change of keys. What it reveals to one who sees the names
    of sealed files: that two versions share rows, and whether a guess of all rows of a chunk is right to the byte.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    rows: int
    bytes: int
    first_line: int = Field(
        default=0,
        description="Added to the column `line` on reading: a row put in at the top of a file moves the lines of all "
        "rows below it, and must not make other chunks of them.",
    )
    file: str | None = Field(
        default=None,
        description="The column `file` on reading, where it is the same in all rows: another name of the same file "
        "makes no other chunks.",
    )


class Manifest(BaseModel):
    """What a version consists of. `id` is the hash of everything below it except `created_at`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    kind: str = Field(description="What the rows are: rows, quarantine, findings, clusters, scores, dropped, …")
    dataset: str
    step: str = Field(description="The asset that wrote it.")
    config_hash: str = Field(description="Hash of what the step was configured with.")
    parent: str | None = Field(description="Manifest that this one was made from.")
    columns: dict[str, str] = Field(description="Polars type by column name, in order.")
    rows: int
    content_hash: str = Field(description="Hash of columns and rows alone: equal content, equal hash.")
    chunks: list[Chunk]
    created_at: datetime


class Identity(TypedDict):
    """What a table is, beside its content: fields of its `Manifest`."""

    kind: str
    dataset: str
    step: str
    config_hash: str
    parent: NotRequired[str | None]


def identity_of(body: dict[str, object]) -> str:
    """The id of a manifest, by all of it but the id and `created_at`: 32 hex digits."""
    return digest(body, 32)
