"""Treatments that get no users any more though their experiment is not over: noted here, decided by a report."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now


@dataclass(frozen=True)
class DroppedArm:
    """A treatment whose users have the control until the experiment is over, why, and who noted it."""

    experiment: str
    model_ref: str
    endpoint: str
    phase: int
    reason: str
    figures: dict[str, Any]
    noted_by: str
    at: datetime


class DroppedArms:
    """The part of the catalog that is about treatments without users."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def note(
        self,
        experiment: str,
        model_ref: str,
        *,
        endpoint: str,
        phase: int,
        reason: str,
        figures: dict[str, Any],
        actor: str,
    ) -> bool:
        """Note that a treatment gets no users any more; False where that was noted before, with what was found then.

        It changes no decision and no endpoint: gateways heed it, and the next `ab_report` decides with it.
        """
        values = {
            "experiment": experiment,
            "model_ref": model_ref,
            "endpoint": endpoint,
            "phase": phase,
            "reason": reason,
            "figures": figures,
            "noted_by": actor,
            "at": now(),
        }
        with self.database.write(actor) as transaction:
            if not transaction.insert_missing(t.dropped_arms, values):
                return False
            transaction.audit("experiment.drop", experiment, model_ref=model_ref, reason=reason)
            return True

    def of(self, experiment: str) -> dict[str, DroppedArm]:
        """What was noted of an experiment, by model."""
        statement = sa.select(t.dropped_arms).where(t.dropped_arms.c.experiment == experiment)
        return {row["model_ref"]: DroppedArm(**row) for row in self.database.rows(statement)}

    def in_force(self) -> dict[str, dict[str, tuple[str, str]]]:
        """By endpoint the models without users, each with the experiment that it was noted in, and its control.

        A note holds until its experiment's decision was carried out, and as long as the endpoint's shares are those in
        which it was made: in between, no user meets the model again. Another experiment that is started there ends it.
        """
        found: dict[str, dict[str, tuple[str, str]]] = {}
        for row in self.database.rows(_in_force()):
            found.setdefault(row["endpoint"], {})[row["model_ref"]] = row["experiment"], row["control"]
        return found


@cache
def _in_force() -> sa.Select[Any]:
    """The notes that hold. Made once: a gateway asks twice a second, and making it costs more than the answer."""
    d, e, p = t.dropped_arms, t.experiments, t.endpoints
    others = t.experiments.alias()
    joined = d.join(e, e.c.name == d.c.experiment).join(p, p.c.name == d.c.endpoint)
    another = sa.exists().where(
        others.c.endpoint == d.c.endpoint, others.c.state == "running", others.c.name != d.c.experiment
    )
    under_way = sa.and_(e.c.acted_at.is_(None), e.c.withheld.is_(None))
    holds = sa.and_(sa.not_(another), sa.or_(under_way, d.c.phase == p.c.phase))
    control = e.c.spec["control"].as_string().label("control")
    return sa.select(d.c.endpoint, d.c.model_ref, d.c.experiment, control).select_from(joined).where(holds)
