"""The prompt versions that endpoints use: taken from the registry by the platform, read by the gateway."""

import sqlalchemy as sa

from llmops_assets.records.prompts import ResolvedPrompt
from resources.catalog import tables as t
from resources.catalog.database import Database, Transaction, now


class EndpointPrompts:
    """The part of the catalog that is about prompts of endpoints."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> dict[str, ResolvedPrompt]:
        """The prompt of each endpoint that has one."""
        rows = self.database.rows(sa.select(t.endpoint_prompts))
        return {r["endpoint"]: ResolvedPrompt(r["name"], r["version"], r["template"], r["alias"]) for r in rows}

    def set(self, endpoint: str, prompt: ResolvedPrompt, actor: str) -> bool:
        """Note which version an endpoint uses from now on; False where it was that one already."""
        with self.database.write(actor) as transaction:
            return set_prompt(transaction, endpoint, prompt)

    def remove(self, endpoint: str, actor: str) -> bool:
        """Forget the prompt of an endpoint; False where it had none."""
        with self.database.write(actor) as transaction:
            return set_prompt(transaction, endpoint, None)


def set_prompt(transaction: Transaction, endpoint: str, prompt: ResolvedPrompt | None) -> bool:
    """As `EndpointPrompts.set`, or `remove` with None, in a transaction that does more."""
    table = t.endpoint_prompts
    if prompt is None:
        if not transaction.changed(table.delete().where(table.c.endpoint == endpoint)):
            return False
        transaction.audit("endpoint.prompt", endpoint, prompt=None)
        return True
    values = {"name": prompt.name, "version": prompt.version, "alias": prompt.alias, "template": prompt.template}
    before = transaction.first(sa.select(table).where(table.c.endpoint == endpoint), lock=True)
    if before is not None and all(before[name] == value for name, value in values.items()):
        return False
    if before is None:
        transaction.execute(table.insert().values(endpoint=endpoint, updated_at=now(), **values))
    else:
        transaction.execute(table.update().where(table.c.endpoint == endpoint).values(updated_at=now(), **values))
    was = None if before is None else f"{before['name']}@{before['version']}"
    transaction.audit("endpoint.prompt", endpoint, prompt=prompt.label, alias=prompt.alias, before=was)
    return True
