"""`hemascope station` and the errors of `hemascope serve`."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hemascope import Classifier
from hemascope.bundle.bundle import write_bundle
from hemascope.cli import app
from hemascope.cli.serve import _choose_bundle
from hemascope.serve.demo import DEMO, FIELDS, fill_demo
from hemascope.serve.store.bundles import add_bundle, choose_bundle, finish_bundle, folder_of
from hemascope.serve.store.database import DATABASE, open_store
from hemascope.serve.store.people import User, find_session, log_in
from hemascope.serve.store.samples import list_images, list_unfinished

PASSWORD = "correct horse battery"


def call(*words: str) -> int:
    return int(app([*words], result_action="return_value", exit_on_error=False))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap_passwords: None) -> Path:
    """The folder of a store with one person."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert call("station", "add-user", str(tmp_path / "store"), "Ada", "reviewer") == 0
    return tmp_path / "store"


def test_a_person_who_was_added_can_log_in(folder: Path) -> None:
    assert log_in(open_store(folder), "Ada", PASSWORD)
    assert call("station", "change-user", str(folder), "Ada", "--disabled") == 0
    assert log_in(open_store(folder), "Ada", PASSWORD) is None


def test_verify_finds_what_was_altered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("station", "verify", str(folder)) == 0
    printed = capsys.readouterr().out.split()[-1]
    assert call("station", "verify", str(folder), "--expect", printed) == 0
    assert call("station", "verify", str(folder), "--expect", "0" * 64) == 1
    sha256 = open_store(folder).images.add(b"an image")
    open_store(folder).images.path(sha256).write_bytes(b"another")
    assert call("station", "verify", str(folder)) == 1
    open_store(folder).images.path(sha256).write_bytes(b"an image")
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("DROP TRIGGER audit_trail_no_UPDATE")
        connection.execute("UPDATE audit_trail SET who = 'Eve'")
        connection.commit()
    assert call("station", "verify", str(folder)) == 1
    assert "was changed" in capsys.readouterr().err


def test_backup_and_restore(folder: Path, tmp_path: Path) -> None:
    assert call("station", "backup", str(folder), str(tmp_path / "copy")) == 0
    assert call("station", "restore", str(tmp_path / "copy"), str(tmp_path / "new")) == 0
    assert log_in(open_store(tmp_path / "new"), "Ada", PASSWORD)


def test_nothing_is_made_where_there_is_no_store(tmp_path: Path) -> None:
    for words in (("verify", "none"), ("backup", "none", "copy")):
        with pytest.raises(ValueError, match="there is no store"):
            call("station", words[0], *(str(tmp_path / word) for word in words[1:]))
    assert not any(tmp_path.iterdir())


def test_serve_refuses_what_does_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="--demo"):
        call("serve", "--demo", "--store", str(tmp_path))
    with pytest.raises(ValueError, match="--database needs --store"):
        call("serve", "--database", "postgresql://a@b/c")
    with pytest.raises(ValueError, match="queue must be at least 1"):
        call("serve", "--queue", "0")
    monkeypatch.setenv("HEMASCOPE_TOKEN", "short")
    with pytest.raises(ValueError, match="16 characters"):
        call("serve")


def test_the_demo_has_a_sample_and_somebody_who_may_sign_it(
    tmp_path: Path, cheap_passwords: None
) -> None:
    store = open_store(tmp_path)
    password = fill_demo(store)
    held = log_in(store, DEMO, password)
    assert held
    user = find_session(store, held)
    assert user is not None
    assert user.may("reviewer")
    with store.reading() as connection:
        (sample,) = list_unfinished(connection)
        assert len(list_images(connection, sample)) == FIELDS


def test_the_station_starts_with_the_bundle_that_was_chosen(folder: Path) -> None:
    store = open_store(folder)
    assert _choose_bundle(None, store) is None
    admin = User(1, "Ada", "administrator")
    number = add_bundle(store, admin, "ours", "2026", 1)
    write_bundle(Classifier(threads=1).bundle, folder_of(store, number))
    finish_bundle(store, number, 10)
    choose_bundle(store, admin, number)
    assert _choose_bundle(None, store) == folder_of(store, number)
    given = Path("another")
    assert _choose_bundle(given, store) == given
