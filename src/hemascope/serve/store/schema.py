"""The tables of the store, for SQLite and PostgreSQL alike.

A change here needs a migration beside it, in `migrations/versions`.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("password", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("locked_until", Float, nullable=False, default=0.0),
)

sessions = Table(
    "sessions",
    metadata,
    Column("key", String(64), primary_key=True),  # SHA-256 of what the browser holds
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("began", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("problem", Text, nullable=False, default=""),
    Column("created", String(40), nullable=False),
    Column("created_by", Integer, ForeignKey("users.id"), nullable=False),
    Column("wbc", Float),
    Column("um_per_pixel", Float),
    Column("version", Integer, nullable=False, default=1),  # of the report; an amendment adds one
    Column("reason", Text, nullable=False, default=""),  # of the amendment that is open
    Column("changes", Integer, nullable=False, default=0),  # rises with each change of a cell
    Column("opened", String(40), nullable=False, default=""),  # when the review of a version began
    Column("model_sha256", String(64), nullable=False, default=""),
    Column("locator_sha256", String(64), nullable=False, default=""),
)

fields = Table(
    "fields",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sample_id", String(32), ForeignKey("samples.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", String(250), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("named", LargeBinary),  # a NamedField as JSON; None until it is located
    UniqueConstraint("sample_id", "number"),
)

cells = Table(
    "cells",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sample_id", String(32), ForeignKey("samples.id"), nullable=False, index=True),
    Column("field_id", Integer, ForeignKey("fields.id"), nullable=False),
    Column("number", Integer, nullable=False),  # among the cells of its field
    Column("machine", String(100), nullable=False),  # the model's label; empty for none
    Column("probability", Float, nullable=False, default=0.0),
    Column("reason", Text, nullable=False, default=""),  # why the machine leaves it unidentified
    Column("label", String(100), nullable=False, default=""),  # a person's; empty for none
    Column("labelled_by", Integer, ForeignKey("users.id")),
    Column("labelled_at", String(40), nullable=False, default=""),
    Column("added_by", String(100), nullable=False, default=""),  # who drew it; empty: the machine
    Column("comment", Text, nullable=False, default=""),
    Column("version", Integer, nullable=False, default=1),
    UniqueConstraint("field_id", "number"),
)

edits = Table(
    "edits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sample_id", String(32), ForeignKey("samples.id"), nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("state", String(10), nullable=False),  # done, undone or dropped
    Index("ix_edits_sample_user", "sample_id", "user_id"),
)

edit_cells = Table(
    "edit_cells",
    metadata,
    Column("edit_id", Integer, ForeignKey("edits.id"), primary_key=True),
    Column("cell_id", Integer, ForeignKey("cells.id"), primary_key=True),
    Column("before", String(100), nullable=False),
    Column("after", String(100), nullable=False),
)

signatures = Table(
    "signatures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sample_id", String(32), ForeignKey("samples.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("meaning", String(20), nullable=False),
    Column("signed", String(40), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("record", LargeBinary, nullable=False),  # the DifferentialCount that was signed, as JSON
    Column("labels", LargeBinary, nullable=False),  # [cell id, machine, label] of each cell
    Column("sha256", String(64), nullable=False),  # of all of it
    Column("seconds", Float),  # that the review took; None where it is not known
    UniqueConstraint("sample_id", "version", "meaning"),
)

tests = Table(
    "tests",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("sample_id", String(32), ForeignKey("samples.id"), nullable=False),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False, index=True),
    Column("given_by", String(100), nullable=False),
    Column("given", String(40), nullable=False),
    Column("finished", String(40), nullable=False, default=""),
    Column("truth", LargeBinary, nullable=False),  # label of each cell, as JSON, as it was signed
    Column("labels", LargeBinary, nullable=False),  # the user's, as JSON
    Column("changes", Integer, nullable=False, default=0),
)

bundles = Table(
    "bundles",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("state", String(10), nullable=False),  # training, ready, failed
    Column("problem", Text, nullable=False, default=""),
    Column("created", String(40), nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("until", String(40), nullable=False, default=""),  # when its last sample was signed
    Column("samples", Integer, nullable=False, default=0),
    Column("cells", Integer, nullable=False, default=0),
    Column("card_sha256", String(64), nullable=False, default=""),
    Column("chosen", String(40), nullable=False, default=""),  # when it was made the present one
    Column("comparison", LargeBinary),  # as JSON; None until it is compared
)

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("who", String(100), nullable=False),
    Column("action", String(40), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_trail_subject", "subject"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)
