"""Cells that people add, when and how long samples are reviewed, proficiency tests, bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From the first schema."""
    _add_columns()
    op.create_index("ix_audit_trail_subject", "audit_trail", ["subject"])
    op.create_table(
        "tests",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("sample_id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("given_by", sa.String(length=100), nullable=False),
        sa.Column("given", sa.String(length=40), nullable=False),
        sa.Column("finished", sa.String(length=40), nullable=False),
        sa.Column("truth", sa.LargeBinary(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_tests_sample_id_samples"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tests_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_tests"),
    )
    op.create_index("ix_tests_user_id", "tests", ["user_id"])
    op.create_table(
        "bundles",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("created", sa.String(length=40), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("until", sa.String(length=40), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("cells", sa.Integer(), nullable=False),
        sa.Column("card_sha256", sa.String(length=64), nullable=False),
        sa.Column("chosen", sa.String(length=40), nullable=False),
        sa.Column("comparison", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_bundles"),
    )


def _add_columns() -> None:
    for table, name, length in (
        ("samples", "opened", 40),
        ("cells", "labelled_at", 40),
        ("cells", "added_by", 100),
    ):
        column = sa.Column(name, sa.String(length=length), nullable=False, server_default="")
        op.add_column(table, column)
    op.add_column("signatures", sa.Column("seconds", sa.Float(), nullable=True))
