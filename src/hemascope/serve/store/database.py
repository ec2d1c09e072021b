"""Store: the database and the folder of images, opened and brought to the present schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from hemascope.errors import StorageError
from hemascope.serve.store.images import ImageFolder

MIGRATIONS = Path(__file__).parent / "migrations"
DATABASE = "station.sqlite"
LOCK = 0x68656D61  # names our lock among the advisory locks of PostgreSQL
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # what was answered is on the disk, also when the power fails
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 20000",
)


@dataclass(frozen=True, eq=False)
class Store:
    """A database and the images by their hashes. Threads can share it.

    Changes follow one another: only one is made at a time, on all stations of a database.
    """

    engine: Engine
    images: ImageFolder

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A connection whose changes are all made at its end, or none of them."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(hemascope_changes=True)
            with connection.begin():
                if self.engine.dialect.name == "postgresql":
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                yield connection

    @property
    def folder(self) -> Path:
        """Where the images, the bundles and the counts are."""
        return self.images.folder.parent

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file in the folder of the store."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def open_store(folder: Path, address: str | None = None) -> Store:
    """The store in a folder, made if it is not there; its database is elsewhere with an address.

    An address is as `postgresql://user@host/database`. Raises StorageError for a database that
    cannot be reached, or that a newer version has made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = _open_engine(folder, address)
    store = Store(engine, ImageFolder(folder / "images"))
    try:
        _migrate(store)
    except OperationalError as error:
        where = address and make_url(address).render_as_string(hide_password=True)
        raise StorageError(f"{where or folder / DATABASE}: {error.orig}") from None
    return store


def open_existing(folder: Path, address: str | None = None) -> Store:
    """The store in a folder. Raises StorageError where there is none, rather than make one."""
    if address is None and not (folder / DATABASE).exists():
        raise StorageError(f"{folder}: there is no store; 'hemascope station add-user' makes one")
    return open_store(folder, address)


def _open_engine(folder: Path, address: str | None) -> Engine:
    if address is None:
        engine = create_engine(f"sqlite:///{folder / DATABASE}")
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        url = make_url(address)
    except ArgumentError:
        raise StorageError("the address of the database is none; give postgresql://…") from None
    if url.get_backend_name() != "postgresql":
        raise StorageError(f"{url.get_backend_name()} is not supported; give postgresql://…")
    return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, below
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _begin_sqlite(connection: Connection) -> None:
    changes = connection.get_execution_options().get("hemascope_changes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if changes else "BEGIN")


def _migrate(store: Store) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with store.changing() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except command.util.CommandError as error:  # type: ignore[attr-defined]
            raise StorageError(
                f"the store was made by another version of Hemascope: {error}"
            ) from None


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database that is whole."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
