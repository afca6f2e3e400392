"""How many servers share the users of a route: changed without a new phase, as nobody's model changes."""

from collections.abc import Sequence

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now


class RouteReplicas:
    """The part of the catalog that is about the servers beside each other on a route."""

    database: Database

    def set_replicas(self, name: str, model_ref: str, ids: Sequence[str], *, expected_phase: int, actor: str) -> bool:
        """Let these servers share the users of a model on an endpoint; False where its routes are others by now.

        Shares, and so the phase, stay as they are: a user keeps the model that he was assigned.
        """
        table = t.endpoints
        with self.database.write(actor) as transaction:
            statement = sa.select(table.c.routes, table.c.phase).where(table.c.name == name)
            row = transaction.first(statement, lock=True)
            if row is None or row["phase"] != expected_phase or not ids:
                return False
            several = {"backend_ids": list(ids)} if len(ids) > 1 else {}
            routes = [
                {**{k: v for k, v in route.items() if k != "backend_ids"}, "backend_id": ids[0], **several}
                if route["model_ref"] == model_ref
                else route
                for route in row["routes"]
            ]
            if routes == row["routes"]:
                return False
            transaction.execute(table.update().where(table.c.name == name).values(routes=routes, updated_at=now()))
            transaction.audit("endpoint.replicas", name, model_ref=model_ref, backends=list(ids))
            return True
