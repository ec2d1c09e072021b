"""The users page: only administrators see it, and each change is recorded and ends sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hemascope.serve.pages import users
from hemascope.serve.pages.station import Station
from hemascope.serve.store.audit import read_entries, verify
from hemascope.serve.store.people import FAILURES, Account, find_session, list_accounts, log_in
from test_pages_review import PASSWORD, Browser, browser, classifier, station

__all__ = ["browser", "classifier", "station"]
NEW = "another password"


def account(station: Station, name: str) -> Account:
    with station.store.reading() as connection:
        (found,) = (each for each in list_accounts(connection) if each.name == name)
    return found


def last_entry(station: Station) -> tuple[str, str, str, dict[str, Any]]:
    with station.store.reading() as connection:
        *_, last = read_entries(connection)
    return last["who"], last["action"], last["subject"], json.loads(last["detail"])


def test_a_user_is_added_and_changed_and_each_change_recorded(
    browser: Browser, station: Station
) -> None:
    browser.log_in("administrator")
    assert browser.submit("/users", name="Eve", role="viewer", password=PASSWORD).status_code == 200
    assert last_entry(station) == ("administrator", "add user", "Eve", {"role": "viewer"})
    eve = account(station, "Eve")
    assert (eve.role, eve.disabled) == ("viewer", False)
    held = log_in(station.store, "Eve", PASSWORD)
    assert held
    path = f"/users/{eve.id}"
    browser.submit(f"{path}/role", role="reviewer")
    assert account(station, "Eve").role == "reviewer"
    known = {"role": "reviewer", "password": False}
    assert last_entry(station) == ("administrator", "change user", "Eve", known)
    assert find_session(station.store, held) is None
    browser.submit(f"{path}/state", disabled="true")
    assert log_in(station.store, "Eve", PASSWORD) is None
    browser.submit(f"{path}/state", disabled="false")
    assert log_in(station.store, "Eve", PASSWORD)
    browser.submit(f"{path}/password", password=NEW)
    assert last_entry(station) == ("administrator", "change user", "Eve", {"password": True})
    assert log_in(station.store, "Eve", PASSWORD) is None
    assert log_in(station.store, "Eve", NEW)
    with station.store.reading() as connection:
        assert not verify(connection).problems
    page = browser.get("/users").text
    assert "Eve" in page
    assert NEW not in page


def test_a_lock_out_is_shown_and_ended(browser: Browser, station: Station) -> None:
    for _ in range(FAILURES):
        assert log_in(station.store, "viewer", "a wrong password") is None
    browser.log_in("administrator")
    assert "locked for a while" in browser.get("/users").text
    browser.submit(f"/users/{account(station, 'viewer').id}/unlock")
    known = {"password": False, "unlocked": True}
    assert last_entry(station) == ("administrator", "change user", "viewer", known)
    assert "locked for a while" not in browser.get("/users").text
    assert log_in(station.store, "viewer", PASSWORD)


@pytest.mark.parametrize("role", ["viewer", "technologist", "reviewer"])
def test_others_neither_see_nor_change_users(browser: Browser, station: Station, role: str) -> None:
    browser.log_in(role)
    assert browser.get("/users").status_code == 403
    assert 'href="/users"' not in browser.get("/").text
    own = f"/users/{account(station, role).id}"
    assert browser.submit(f"{own}/role", role="administrator").status_code == 403
    assert account(station, role).role == role


@pytest.mark.parametrize(
    ("path", "form", "status", "said"),
    [
        ("", {"name": "viewer", "role": "viewer", "password": PASSWORD}, 400, "already"),
        ("", {"name": "Eve", "role": "king", "password": PASSWORD}, 400, "unknown role"),
        ("", {"name": "Eve", "role": "viewer", "password": "short"}, 400, "a password has"),
        ("", {"name": "\x00", "role": "viewer", "password": PASSWORD}, 400, "a name has"),
        ("/999/role", {"role": "viewer"}, 404, "no such user"),
        ("/{own}/role", {"role": "viewer"}, 409, "another administrator"),
        ("/{own}/state", {"disabled": "true"}, 409, "another administrator"),
        ("/{viewer}/state", {"disabled": "maybe"}, 400, "true or false"),
        ("/{viewer}/password", {"password": "short"}, 400, "a password has"),
    ],
)
def test_what_cannot_be_is_refused(
    browser: Browser, station: Station, path: str, form: dict[str, str], status: int, said: str
) -> None:
    browser.log_in("administrator")
    with station.store.reading() as connection:
        before = list_accounts(connection)
    numbers = {"{own}": "administrator", "{viewer}": "viewer"}
    for place, name in numbers.items():
        path = path.replace(place, str(account(station, name).id))
    answer = browser.submit(f"/users{path}", **form)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True)
    with station.store.reading() as connection:
        assert list_accounts(connection) == before


def test_a_failure_is_told_in_the_language_of_the_pages(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a secret of the station")

    browser.log_in("administrator")
    monkeypatch.setattr(users, "list_accounts", fail)
    for kind, start in (("text/html", "<!DOCTYPE html>"), ("*/*", "{")):
        answer = browser.get("/users", headers={"Accept-Language": "de", "Accept": kind})
        assert answer.status_code == 500
        assert answer.text.startswith(start)
        assert "die Station hat versagt; ihr Protokoll sagt, warum" in answer.text
        assert "secret" not in answer.text
    assert "GET /users failed" in caplog.text
    assert "a secret of the station" in caplog.text


def test_markup_in_a_name_stays_text(browser: Browser) -> None:
    browser.log_in("administrator")
    browser.submit("/users", name="<b>Eve</b>", role="viewer", password=PASSWORD)
    page = browser.get("/users").text
    assert "<b>Eve" not in page
    assert "&lt;b&gt;Eve&lt;/b&gt;" in page
