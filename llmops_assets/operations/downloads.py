"""Who took what of models and data away: a line of the audit log before the first byte."""

from pathlib import Path

from llmops_assets.operations.access import authorise
from llmops_assets.wiring import Wiring


def checkout_rows(wiring: Wiring, actor: str, dataset: str, step: str, target: Path) -> tuple[str, str, int]:
    """Write the rows of a version to a file: its key, its manifest's id, and how many rows.

    `step` is dataset, as registered, or clean, with personal data masked. Raises NotFound, or ValueError for a suffix
    that is no format.
    """
    from llmops_assets.datasets.versions.checkout import checkout
    from llmops_assets.datasets.versions.history import manifest_of
    from resources.catalog import pointers

    authorise(wiring, actor, "dataset.download")
    key = pointers.resolve(wiring.catalog, dataset)
    manifest = manifest_of(wiring.store, wiring.records, key, step)
    wiring.catalog.log(actor, "dataset.download", key, step=step, manifest=manifest.id, to=str(target.absolute()))
    rows = checkout(wiring.store.batches(manifest.id), wiring.catalog.dataset(key).type, target)
    return key, manifest.id, rows


def note_download(wiring: Wiring, actor: str, file: str, through: str) -> None:
    """Note that a file of MLflow's goes to `actor`; Forbidden where they may not. `through` is the page."""
    authorise(wiring, actor, "model.download")
    wiring.catalog.log(actor, "model.download", file[:500], through=through, watermark=watermark_id(wiring))


def watermark_id(wiring: Wiring) -> str | None:
    """The commitment to the key that models are marked with here, which tells nothing of the key; None without one."""
    from llmops_assets.training import watermark

    secret = wiring.settings.watermark_secret
    return None if secret is None else watermark.commitment(watermark.key_of(secret))
