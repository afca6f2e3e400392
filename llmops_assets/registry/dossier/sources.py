"""Where what a dossier tells is on record: a version, and what it was made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from llmops_assets.evaluation.leakage import chain_of
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import Policy
from resources.catalog import Catalog
from resources.records import Records
from resources.tracking import ModelVersion, Tracking


class Checked(Protocol):
    """The last evaluation of one asset check."""

    @property
    def asset(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def passed(self) -> bool: ...

    @property
    def description(self) -> str: ...


class Checks(Protocol):
    """The log of checks, as `resources.run_log.RunLog` reads it."""

    def checks(self, partition: str, assets: Iterable[str]) -> Sequence[Checked]: ...


@dataclass(frozen=True)
class Sources:
    """Where everything that a dossier tells is on record."""

    records: Records
    catalog: Catalog
    tracking: Tracking
    run_log: Checks
    policy: Policy


@dataclass(frozen=True)
class Lineage:
    """One version, and the records of what it was made of; None where those of its cell are of other weights now."""

    version: ModelVersion
    record: RegisteredModelRecord
    sources: Sources

    @property
    def cell(self) -> str:
        return training_key(self.record.dataset, self.record.recipe)

    @cached_property
    def merged(self) -> MergedModelRecord | None:
        found = self.sources.records.find(MergedModelRecord, self.cell)
        same = found is not None and (self.record.scheme is not None or found.content_hash == self.record.content_hash)
        return found if same else None

    @cached_property
    def plan(self) -> PlanRecord | None:
        found = self.sources.records.find(PlanRecord, self.cell)
        same = found is not None and self.merged is not None and found.training_key == self.merged.training_key
        return found if same else None

    @cached_property
    def adapter(self) -> AdapterRecord | None:
        found = self.sources.records.find(AdapterRecord, self.cell)
        same = found is not None and self.merged is not None and found.training_key == self.merged.training_key
        return found if same else None

    @cached_property
    def evaluation(self) -> EvaluationRecord | None:
        found = self.sources.records.find(EvaluationRecord, self.cell)
        same = found is not None and self.merged is not None and found.model_hash == self.merged.content_hash
        return found if same else None

    @cached_property
    def chain(self) -> list[PlanRecord]:
        """Its training, then those of the models that it was made from."""
        return chain_of(self.plan, self.sources.records) if self.plan is not None else []

    @property
    def datasets(self) -> list[str]:
        """The dataset versions that it learned from, its own first."""
        return list(dict.fromkeys(each.dataset for each in self.chain)) or [self.record.dataset]
