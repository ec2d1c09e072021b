"""What alembic runs to migrate: on the connection that the store gives it."""

from __future__ import annotations

from alembic import context

from hemascope.serve.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
