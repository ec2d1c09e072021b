"""`hemascope station` and the errors of `hemascope serve`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from hemascope import Classifier
from hemascope.bundle.bundle import write_bundle
from hemascope.cli import app
from hemascope.cli.serve import _choose_bundle
from hemascope.errors import StorageError
from hemascope.serve.demo import DEMO, FIELDS, fill_demo
from hemascope.serve.store import copied
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


def choose_own_bundle(folder: Path) -> Path:
    """Gives a store a bundle of its own that is chosen, and tells where it is."""
    store, admin = open_store(folder), User(1, "Ada", "administrator")
    number = add_bundle(store, admin, "ours", "2026", 1)
    write_bundle(Classifier(threads=1).bundle, folder_of(store, number))
    finish_bundle(store, number, 10)
    choose_bundle(store, admin, number)
    return folder_of(store, number)


def add_count(folder: Path, name: str) -> Path:
    """Puts a finished count into a store, as the service keeps it."""
    kept = folder / "counts" / name
    kept.mkdir(parents=True)
    (kept / "job.json").write_text("{}")
    (kept / "count.csv").write_text("sample\nslide 17\n")
    return kept


def content_of(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_restored_station_starts_with_the_bundle_that_was_chosen(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, new = tmp_path / "copy", tmp_path / "new"
    chosen = choose_own_bundle(folder)
    gone, kept = add_count(folder, "gone"), add_count(folder, "kept")
    (folder / "counts" / "half").mkdir()
    (folder / "counts" / "half" / "0000.png").write_bytes(b"not all its fields are here")
    (chosen / ".card.json.0123abcd.json").write_text("left by a process that was killed")
    assert call("station", "backup", str(folder), str(copy)) == 0
    shutil.rmtree(gone)  # the service forgets old counts
    (kept / "count.csv").write_text("sample\nslide 18\n")
    assert call("station", "backup", str(folder), str(copy)) == 0
    assert call("station", "verify", str(copy)) == 0
    assert call("station", "restore", str(copy), str(new)) == 0
    assert call("station", "verify", str(new)) == 0
    found = _choose_bundle(None, open_store(new))
    assert found == new / "bundles" / chosen.name
    (chosen / ".card.json.0123abcd.json").unlink()
    assert content_of(found) == content_of(chosen)
    assert content_of(new / "counts") == {
        "kept/count.csv": b"sample\nslide 18\n",
        "kept/job.json": b"{}",
    }
    (found / "model.onnx").write_bytes(b"another")
    assert call("station", "verify", str(new)) == 1
    assert "the bundle ours: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bundles/*/model.onnx", "counts/one/count.csv"])
def test_a_backup_whose_files_were_altered_is_not_restored(
    folder: Path, tmp_path: Path, name: str
) -> None:
    choose_own_bundle(folder)
    add_count(folder, "one")
    copy, new = tmp_path / "copy", tmp_path / "new"
    assert call("station", "backup", str(folder), str(copy)) == 0
    (altered,) = copy.glob(name)
    altered.write_bytes(b"another")
    assert call("station", "verify", str(copy)) == 1
    with pytest.raises(StorageError, match="was altered; take another backup"):
        call("station", "restore", str(copy), str(new))
    altered.unlink()
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        call("station", "restore", str(copy), str(new))
    assert not new.exists()
    assert call("station", "backup", str(folder), str(copy)) == 0  # mends the copy
    assert call("station", "restore", str(copy), str(new)) == 0


@pytest.mark.parametrize("name", ["../other", "/etc/passwd", "counts/../../other", "images/ab/cd"])
def test_a_list_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    assert call("station", "backup", str(folder), str(copy)) == 0
    (copy / "files.json").write_text(json.dumps({name: "0" * 64}))
    with pytest.raises(StorageError, match="which is in no backup"):
        call("station", "restore", str(copy), str(tmp_path / "new"))
    (copy / "files.json").write_text("[")
    with pytest.raises(StorageError, match="damaged"):
        call("station", "restore", str(copy), str(tmp_path / "new"))


def test_what_changes_all_the_time_is_not_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, copy_file = add_count(folder, "one"), copied._copy_file

    def change(source: Path, target: Path) -> str:
        with (kept / "count.csv").open("a") as file:
            file.write("more\n")
        return copy_file(source, target)

    monkeypatch.setattr(copied, "_copy_file", change)
    with pytest.raises(StorageError, match="changes while it is copied"):
        call("station", "backup", str(folder), str(tmp_path / "copy"))


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


@pytest.mark.slow
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
    chosen = choose_own_bundle(folder)
    assert _choose_bundle(None, store) == chosen
    given = Path("another")
    assert _choose_bundle(given, store) == given


@pytest.mark.slow
def test_the_demo_is_ready_for_review_within_ten_seconds() -> None:
    """Of processor time, as others may be at work on the machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "hemascope", "serve", "--demo", "--port", str(port)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as station:
        try:
            assert station.stdout is not None
            said = iter(station.stdout.readline, "")
            password = next(line for line in said if "password" in line).split()[-1]
            next(line for line in said if "listening" in line)
            look_for_sample(f"http://127.0.0.1:{port}", password)
        finally:
            station.terminate()
            station.wait(30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def look_for_sample(address: str, password: str) -> None:
    """Logs in, and waits until a sample can be reviewed."""
    with httpx2.Client(base_url=address, follow_redirects=True) as client:
        for _ in range(600):
            with contextlib.suppress(httpx2.TransportError):
                client.post("/login", data={"name": DEMO, "password": password})
                break
            time.sleep(0.1)
        for _ in range(600):
            page = client.get("/").text
            if "/samples/" in page and "data-importing" not in page:
                break
            time.sleep(0.1)
        found = re.search(r'href="(/samples/[^"/]+)"', page)
        assert found
        assert client.get(found[1]).text.count('"group":') > 10
