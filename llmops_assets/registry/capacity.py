"""Whether a model has room for another version in the registry, as the policy limits them."""

from collections.abc import Sequence

from llmops_assets.verdict import Verdict
from resources.tracking import ModelVersion

NEAR_SHARE = 0.9
"""Share of the limit from which on a registration warns."""


class RegistryFull(ValueError):
    """The model has as many versions as the policy allows; the message says which could make room."""


def capacity(name: str, versions: Sequence[ModelVersion], content_hash: str, limit: int) -> Verdict:
    """Whether weights of `content_hash` may become a version of `name` beside `versions`, all that it has so far.

    Archived versions take no room, and weights that are registered already need none. The text of a passed verdict is
    a warning where `limit` is near, else empty.
    """
    kept = [version for version in versions if version.state != "archived"]
    figures: dict[str, float | int | str] = {"versions": len(kept), "limit": limit}
    if any(version.tags.get("content_hash") == content_hash for version in versions):
        return Verdict(True, "", figures)
    if len(kept) >= limit:
        idle = sorted((v for v in kept if v.state in ("draft", "approved")), key=lambda v: v.created_at)
        which = f", for example {idle[0].ref}, the oldest that nobody uses" if idle else ""
        return Verdict(
            False,
            f"{name} has {len(kept)} versions and the policy allows {limit} (limits.model_versions). Archive some with "
            f"`llmops model archive NAME@VERSION`{which}, or raise the limit",
            figures,
        )
    if len(kept) + 1 >= NEAR_SHARE * limit:
        return Verdict(
            True,
            f"{name} has {len(kept) + 1} of {limit} versions that the policy allows (limits.model_versions): archive "
            "what nobody uses any more",
            figures,
        )
    return Verdict(True, "", figures)
