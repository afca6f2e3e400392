"""Says whether a training has learned from rows that were erased since."""

from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.catalog.erasures import ModelAffected, assert_not_affected


def learned_nothing_erased(catalog: Catalog, cell: str) -> Verdict:
    """Whether the training of a partition saw nothing that was erased since."""
    try:
        assert_not_affected(catalog, cell=cell)
    except ModelAffected as error:
        return Verdict(False, str(error))
    return Verdict(True, "Nothing that it was trained on was erased since.")
