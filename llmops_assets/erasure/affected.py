"""Says whether a training, or what an endpoint serves, has learned from rows that were erased since."""

from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.erasures import ModelAffected, assert_not_affected


def learned_nothing_erased(catalog: Catalog, cell: str) -> Verdict:
    """Whether a training saw nothing that was erased since."""
    try:
        assert_not_affected(catalog, cell=cell)
    except ModelAffected as error:
        return Verdict(False, str(error))
    return Verdict(True, "Nothing that it was trained on was erased since.")


def served_affected(catalog: Catalog, endpoint: str) -> Verdict:
    """Whether an endpoint serves no affected model."""
    faults = []
    served = sorted({route["model_ref"] for route in catalog.endpoint(endpoint).routes})
    for ref in served:
        try:
            assert_not_affected(catalog, ref=ref)
        except ModelAffected as error:
            faults.append(str(error))
    return Verdict(not faults, "; ".join(faults) or f"{len(served)} models, none affected by an erasure")
