"""What differs between a model version and the one registered before it under the same name."""

from collections.abc import Iterator

from llmops_assets.registry.dossier.content import Fact, Source
from resources.tracking import ModelVersion, Tracking

COMPARED = ("dataset", "data_hash", "recipe", "base", "base_hash", "method", "code", "image", "gate")
"""Tags of the lineage that make one version another."""


def changes(version: ModelVersion, tracking: Tracking) -> Iterator[Fact]:
    """The version before, and every part of the lineage that changed since."""
    earlier = [other for other in tracking.models(version.name) if other.version < version.version]
    if not earlier:
        yield Fact("first_version", Source("registered_model"))
        return
    before = max(earlier, key=lambda other: other.version)
    source = Source("registered_model", before.ref)
    values = {"ref": before.ref, "at": f"{before.created_at:%Y-%m-%d %H:%M} UTC", "state": before.state}
    yield Fact("previous", source, values)
    same = []
    for name in COMPARED:
        old, new = (one.tags.get(name, "") or "–" for one in (before, version))
        if old == new:
            same.append(name)
        else:
            yield Fact("changed", source, {"name": name, "before": old, "after": new})
    yield Fact("unchanged", source, {"names": ", ".join(same) or "–"})
