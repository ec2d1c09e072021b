"""The store: people, sessions, the audit trail, images, migration and backup, on both databases."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from hemascope.errors import StorageError
from hemascope.serve.store import audit, people
from hemascope.serve.store.backup import back_up, restore
from hemascope.serve.store.database import DATABASE, MIGRATIONS, Store, open_store
from hemascope.serve.store.people import User, add_user, change_user, find_session, log_in, log_out
from hemascope.serve.store.review import list_cells
from hemascope.serve.store.samples import NewField, add_sample, list_images, list_samples
from hemascope.serve.store.schema import metadata

PASSWORD = "correct horse battery"


def test_the_migrations_make_the_tables_that_the_code_knows(store: Store, tmp_path: Path) -> None:
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    if store.is_sqlite:
        again = open_store(tmp_path / "store")  # nothing is left to do
        with again.reading() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        with again.changing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(StorageError, match="another version"):
            open_store(tmp_path / "store")


def test_a_session_is_new_at_each_log_in_and_ends(store: Store) -> None:
    add_user(store, "Ada", PASSWORD, "reviewer")
    first, second = log_in(store, "Ada", PASSWORD), log_in(store, "Ada", PASSWORD)
    assert first
    assert second
    assert first != second
    user, other = find_session(store, first), find_session(store, second)
    assert user is not None
    assert other is not None
    assert (user.name, user.role) == ("Ada", "reviewer")
    assert people.is_csrf(user, user.csrf)
    assert not people.is_csrf(user, other.csrf)
    assert not people.is_csrf(user, "")
    with store.reading() as connection:
        kept = connection.execute(text("SELECT key FROM sessions")).scalars().all()
    assert first not in kept  # a copy of the database opens no session
    log_out(store, first)
    assert find_session(store, first) is None
    assert find_session(store, second) is not None
    change_user(store, "Ada", disabled=True)
    assert find_session(store, second) is None
    assert log_in(store, "Ada", PASSWORD) is None


@pytest.mark.parametrize("column", ["seen", "began"])
def test_a_session_expires(store: Store, column: str) -> None:
    add_user(store, "Ada", PASSWORD, "viewer")
    held = log_in(store, "Ada", PASSWORD)
    assert held
    age = people.IDLE if column == "seen" else people.LONGEST_SESSION
    for seconds, is_there in ((age - 5, True), (age + 5, False)):
        with store.changing() as connection:
            past = text(f"UPDATE sessions SET {column} = :then")
            connection.execute(past, {"then": time.time() - seconds})
        assert (find_session(store, held) is not None) == is_there


def test_five_wrong_passwords_lock_an_account(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(store, "Ada", PASSWORD, "viewer")
    for _ in range(people.FAILURES - 1):
        assert log_in(store, "Ada", "wrong") is None
    assert log_in(store, "Ada", PASSWORD)
    for _ in range(people.FAILURES):
        assert log_in(store, "Ada", "wrong") is None
    assert log_in(store, "Ada", PASSWORD) is None
    assert log_in(store, "nobody", PASSWORD) is None
    later = time.time() + people.LOCKED + 1
    monkeypatch.setattr(people.time, "time", lambda: later)
    assert log_in(store, "Ada", PASSWORD)


def test_passwords_are_argon2_and_short_ones_are_refused(store: Store) -> None:
    add_user(store, "Ada", PASSWORD, "viewer")
    with store.reading() as connection:
        kept = connection.execute(text("SELECT password FROM users")).scalar()
    assert str(kept).startswith("$argon2id$")
    for name, password, role in (
        ("Bob", "short", "viewer"),
        ("Ada", PASSWORD, "viewer"),
        ("", PASSWORD, "viewer"),
        ("Bob", PASSWORD, "king"),
    ):
        with pytest.raises(ValueError, match=r"user|password|name|role"):
            add_user(store, name, password, role)  # type: ignore[arg-type]


def test_roles_include_those_before_them() -> None:
    assert User(1, "Ada", "reviewer").may("technologist")
    assert not User(1, "Ada", "technologist").may("reviewer")


def fill(store: Store, entries: int = 6) -> str:
    """Adds entries to the trail; gives the hash of the third."""
    for number in range(entries):
        with store.changing() as connection:
            audit.append(connection, "Ada", "look", f"cell {number}", note='a "quoted" note, é')
        if number == 2:
            with store.reading() as connection:
                third = audit.verify(connection).hash
    return third


def test_a_whole_trail_is_found_whole(store: Store) -> None:
    with store.reading() as connection:
        assert audit.verify(connection) == audit.Verified(0, audit.BEGINNING, ())
    third = fill(store)
    with store.reading() as connection:
        found = audit.verify(connection, third)
        assert (found.entries, found.problems) == (6, ())
        assert audit.verify(connection, "f" * 64).problems


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_trail SET who = 'Eve' WHERE number = 3",
        "UPDATE audit_trail SET detail = '{}' WHERE number = 6",
        "DELETE FROM audit_trail WHERE number = 1",
        "DELETE FROM audit_trail WHERE number = 4",
        "DELETE FROM audit_trail WHERE number = 6",
        "DELETE FROM audit_trail",
        "UPDATE audit_trail SET number = CASE number WHEN 3 THEN 103 ELSE 102 END "
        "WHERE number IN (2, 3)",
        "INSERT INTO audit_trail SELECT 7, at, who, action, subject, detail, hash, previous "
        "FROM audit_trail WHERE number = 6",
    ],
)
def test_any_change_of_the_trail_is_refused_and_found(tmp_path: Path, statement: str) -> None:
    """The database refuses; and what somebody does who removes its triggers is found."""
    store = open_store(tmp_path)
    fill(store)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        if not statement.startswith("INSERT"):
            with pytest.raises(sqlite3.DatabaseError, match="only ever added"):
                connection.execute(statement)
        connection.execute("DROP TRIGGER audit_trail_no_UPDATE")
        connection.execute("DROP TRIGGER audit_trail_no_DELETE")
        connection.execute(statement)
        connection.commit()
    with store.reading() as read:
        assert audit.verify(read).problems


def test_postgresql_refuses_changes_of_the_trail(store: Store) -> None:
    fill(store)
    for statement in ("UPDATE audit_trail SET who = 'Eve'", "DELETE FROM audit_trail"):
        with pytest.raises(DBAPIError, match="only ever added"), store.changing() as connection:
            connection.execute(text(statement))


def test_many_at_once_keep_the_chain_whole(store: Store) -> None:
    def work() -> None:
        for number in range(10):
            with store.changing() as connection:
                audit.append(connection, "Ada", "look", str(number))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as connection:
        found = audit.verify(connection)
    assert (found.entries, found.problems) == (40, ())


def test_a_change_that_fails_leaves_no_entry(store: Store) -> None:
    def fail() -> None:
        with store.changing() as connection:
            audit.append(connection, "Ada", "look", "cell")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    with store.reading() as connection:
        assert audit.verify(connection).entries == 0


def test_images_are_kept_once_and_an_altered_one_is_found(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sha256 = store.images.add(b"an image")
    assert store.images.add(b"an image") == sha256
    assert store.images.read(sha256) == b"an image"
    store.images.path(sha256).write_bytes(b"another")
    with pytest.raises(StorageError, match="altered"):
        store.images.read(sha256)
    for name in ("../../etc/passwd", "0" * 63, "A" * 64):
        with pytest.raises(ValueError, match="SHA-256"):
            store.images.path(name)


def test_a_backup_while_others_write_is_whole(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    sha256 = store.images.add(b"an image")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with store.changing() as connection:
                audit.append(connection, "Ada", "look", "cell")

    _while(write, stop, lambda: back_up(store, tmp_path / "backup"))
    _while(write, stop, lambda: back_up(store, tmp_path / "backup"))  # into the same folder again
    assert restore(tmp_path / "backup", tmp_path / "new") == 1
    found = open_store(tmp_path / "new")
    with found.reading() as connection:
        assert audit.verify(connection).problems == ()
    assert found.images.read(sha256) == b"an image"
    with pytest.raises(StorageError, match="already"):
        restore(tmp_path / "backup", tmp_path / "new")
    (tmp_path / "backup" / DATABASE).write_bytes(b"no database")
    with pytest.raises(StorageError, match="damaged"):
        restore(tmp_path / "backup", tmp_path / "other")


def _while(write: Callable[[], None], stop: threading.Event, work: Callable[[], object]) -> None:
    stop.clear()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(0.1)
        work()
    finally:
        stop.set()
        writer.join()


def test_another_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for address in ("mysql://a:secret@b/c", "nonsense", "postgresql://a:secret@127.0.0.1:1/c"):
        with pytest.raises(StorageError) as error:
            open_store(tmp_path, address)
        assert "secret" not in str(error.value)


def test_a_postgresql_dump_and_the_images_are_a_backup(postgresql: str, tmp_path: Path) -> None:
    """As the guide says: pg_dump while it runs, then the images; psql into an empty database."""
    with closing(psycopg.connect(postgresql, autocommit=True)) as server:
        for name in ("live", "restored"):
            server.execute(f"DROP DATABASE IF EXISTS {name}")
            server.execute(f"CREATE DATABASE {name}")
    live, restored = (postgresql.replace("/postgres?", f"/{n}?") for n in ("live", "restored"))
    store = open_store(tmp_path / "store", live)
    fill(store)
    sha256 = store.images.add(b"an image")
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    dump = [str(tools / "pg_dump"), f"--file={tmp_path}/station.sql", "--no-owner", live]
    subprocess.run(dump, check=True)
    shutil.copytree(tmp_path / "store" / "images", tmp_path / "new" / "images")
    load = [str(tools / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", restored]
    with (tmp_path / "station.sql").open("rb") as file:
        subprocess.run(load, check=True, stdin=file, stdout=subprocess.DEVNULL)
    found = open_store(tmp_path / "new", restored)
    with store.reading() as before, found.reading() as after:
        assert audit.verify(after) == audit.verify(before)
        assert audit.verify(after).problems == ()
    assert found.images.read(sha256) == b"an image"
    with pytest.raises(DBAPIError, match="only ever added"), found.changing() as connection:
        connection.execute(text("DELETE FROM audit_trail"))  # its triggers are there too
    for opened in (store, found):
        opened.close()


def test_a_store_of_the_first_schema_is_migrated_with_all_it_holds(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{tmp_path / DATABASE}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (
            "INSERT INTO users VALUES (1, 'Ada', 'x', 'reviewer', 0, 0, 0)",
            "INSERT INTO samples VALUES ('s', 'slide', 'new', '', '2026', 1, NULL, NULL, 1, '', 0,"
            " '', '')",
            "INSERT INTO fields VALUES (1, 's', 0, 'a.png', 'f', NULL)",
            "INSERT INTO cells VALUES (1, 's', 1, 0, 'monocyte', 0.9, '', '', NULL, '', 1)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    store = open_store(tmp_path)
    with store.reading() as connection:
        (sample,) = list_samples(connection)
        (cell,) = list_cells(connection, "s")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert (sample.name, sample.opened) == ("slide", "")
    assert (cell.machine, cell.labelled_at, cell.added_by) == ("monocyte", "", "")
    store.close()


def test_an_import_holds_one_field_in_memory_at_a_time(store: Store) -> None:
    add_user(store, "Ada", PASSWORD, "reviewer")
    held: list[weakref.ref[NewField]] = []

    def read() -> Iterator[NewField]:
        for number in range(5):
            assert sum(one() is not None for one in held) <= 1
            field = NewField(f"{number}.png", b"%d" % number)
            held.append(weakref.ref(field))
            yield field

    sample = add_sample(store, User(1, "Ada", "reviewer"), "slide", read())
    with store.reading() as connection:
        assert len(list_images(connection, sample)) == 5
