"""What of an installation this version of the platform cannot read: entries of the catalog, and records."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable

from llmops_assets import records as modules
from llmops_assets.operations.verification import Fault
from llmops_assets.records.base import PATHS, Record
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources.catalog.entries import names_of

_ADVICE = "stay at the version that wrote it, and report this with the words above"


def unreadable(wiring: Wiring) -> tuple[list[Fault], dict[str, int]]:
    """Every entry and record that cannot be read, each by its name; how many were read of each kind.

    One that cannot be read hides no other.
    """
    catalog = wiring.catalog
    faults: list[Fault] = []
    count: dict[str, int] = {}

    def read(kind: str, names: Iterable[str], one: Callable[[str], object]) -> None:
        known = list(names)
        count[kind] = len(known)
        for name in known:
            try:
                one(name)
            except Exception as error:  # noqa: BLE001  whatever one entry's trouble is, it hides no other
                words = " ".join(str(error).split())[:300]
                faults.append(Fault(f"{kind} {name}", f"{type(error).__name__}: {words}", _ADVICE))

    names = names_of(catalog.database)
    read("dataset versions", names["dataset versions"], catalog.dataset)
    read("recipes", catalog.recipes(), lambda key: TrainJobSpec.from_recipe(catalog.recipe(key), "any@v1"))
    read("base models", names["base models"], catalog.base_model)
    read("endpoints", catalog.endpoint_names(), catalog.endpoint)
    read("experiments", names["experiments"], catalog.experiment)
    kinds = _kinds()
    root = wiring.records.root
    found = [p.relative_to(root).with_suffix("").as_posix() for p in sorted(root.rglob("[!.]*.json"))]

    def record(name: str) -> object:
        asset = name.partition("/")[0]
        if asset not in kinds:
            raise LookupError(f"no asset of this version is called {asset}")
        path = root / f"{name}.json"
        data = wiring.records.keys.open(path.read_bytes(), path)
        return kinds[asset].model_validate_json(data, context={PATHS: wiring.paths})

    read("records", found, record)
    return faults, count


def _kinds() -> dict[str, type[Record]]:
    """The kind of record by its asset."""
    for module in pkgutil.iter_modules(modules.__path__):
        importlib.import_module(f"{modules.__name__}.{module.name}")
    pending, found = list(Record.__subclasses__()), dict[str, type[Record]]()
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if "asset" in vars(kind):
            found[kind.asset] = kind
    return found
