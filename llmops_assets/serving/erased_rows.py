"""Says whether what an endpoint serves has learned from rows that were erased since."""

from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.catalog.erasures import ModelAffected, assert_not_affected


def served_affected(catalog: Catalog, endpoint: str) -> Verdict:
    """Whether no model that an endpoint serves saw rows that were erased since; the models that did, by name."""
    faults = []
    served = sorted({route["model_ref"] for route in catalog.endpoint(endpoint).routes})
    for ref in served:
        try:
            assert_not_affected(catalog, ref=ref)
        except ModelAffected as error:
            faults.append(str(error))
    return Verdict(not faults, "; ".join(faults) or f"{len(served)} models, none affected by an erasure")
