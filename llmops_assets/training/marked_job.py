"""The planning job of a recipe that wants marks, with their rows in a file of their own."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from llmops_assets.records.jobs import PlanJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import watermark
from resources.encryption import Keyring


@contextmanager
def with_marks(
    job: PlanJob, spec: TrainJobSpec, key: bytes | None, beside: int, folder: Path, keys: Keyring
) -> Iterator[PlanJob]:
    """The planning job with the rows of the marks, which lie in a file of their own for as long as the body takes.

    The file is sealed with `keys`, as all that passes between the worker and us.
    """
    if key is None or spec.watermark is None:
        yield job
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "marks.parquet"
    buffer = io.BytesIO()
    pl.DataFrame(watermark.rows(key, spec.watermark.marks, spec.watermark.share, beside)).write_parquet(buffer)
    file.write_bytes(keys.seal(buffer.getvalue()))
    try:
        yield job.model_copy(update={"extra_rows": str(file)})
    finally:
        file.unlink(missing_ok=True)
