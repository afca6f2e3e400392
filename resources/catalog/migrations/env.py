"""Runs the catalog's migrations on the connection that the catalog's database hands over."""

from alembic import context

from resources.catalog.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
