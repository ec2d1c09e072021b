"""What is done to the review pages that means harm: nobody gets in, and nothing breaks."""

from __future__ import annotations

import csv
import io
import itertools
import re
import zipfile

import pytest
from sqlalchemy import inspect

from hemascope.serve.pages import reports
from hemascope.serve.pages.access import COOKIE
from hemascope.serve.pages.routes import CHANGED, SHOWN
from hemascope.serve.pages.station import Station
from hemascope.serve.store import audit
from test_pages_review import (
    PASSWORD,
    Browser,
    browser,
    classifier,
    sign_as,
    station,
    upload,
    versions,
)

__all__ = ["browser", "classifier", "station"]
SQL = "x'; DROP TABLE cells; DELETE FROM users; --"
FORM = ("name", "password", "folder", "label", "comment", "meaning", "changes", "reason", "sample")
FORM += ("user", "left_out", "bundle", "search", "csrf")


def tables_of(station: Station) -> dict[str, int]:
    """How many rows each table has."""
    with station.store.reading() as connection:
        names = inspect(connection).get_table_names()
        return {
            name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
            for name in names
        }


@pytest.mark.slow
def test_sql_in_any_field_is_text(browser: Browser, station: Station) -> None:
    browser.log_in("administrator")
    sample = upload(browser, station, SQL)
    before = tables_of(station)
    form = dict.fromkeys(FORM, SQL) | {"csrf": browser.csrf}
    asked = 0
    for path, number in itertools.product([path for path, _, _ in CHANGED], (sample, SQL)):
        if path != "/logout":
            place = path.replace("{id}", number).replace("{number:int}", "0")
            assert browser.post(place, data=form).status_code < 500, place
            asked += 1
    for path, _, _ in SHOWN:
        place = path.replace("{id}", SQL).replace("{name}", SQL)
        answer = browser.get(
            re.sub(r"\{\w+:int\}", SQL, place), params={"label": SQL, "search": SQL}
        )
        assert answer.status_code in (200, 404), path
    assert asked > 20
    other = Browser(browser.app)
    for name, password in ((SQL, PASSWORD), ("administrator", SQL), ("' OR 1=1 --", "' OR 1=1 --")):
        answer = other.post("/login", data={"name": name, "password": password})
        assert answer.status_code == 403
    assert browser.get("/", params={"search": SQL}).text.count("/report") == 1
    after = tables_of(station)
    assert set(after) == set(before)
    assert all(after[name] >= number for name, number in before.items())
    assert after["cells"] == before["cells"] > 0
    with station.store.reading() as connection:
        assert audit.verify(connection).problems == ()


@pytest.mark.slow
def test_a_formula_as_a_samples_name_is_text_in_the_table(
    browser: Browser, station: Station
) -> None:
    browser.log_in("technologist")
    for name in ("=1+1", "+1+cmd|x!A1", "-1+1", "@SUM(1)"):
        sample = upload(browser, station, name)
        table = browser.get(f"/samples/{sample}/count.csv").text
        (row,) = csv.DictReader(io.StringIO(table))
        assert row["sample"] == f"'{name}"


@pytest.mark.slow
def test_markup_is_text_in_what_is_printed(
    browser: Browser, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    monkeypatch.setattr(reports, "print_page", lambda page: bytes(printed.append(page) is None))
    browser.log_in("reviewer")
    sample = upload(browser, station, "<img src=file:///etc/passwd><script>x</script>")
    sign_as(browser, sample)
    browser.submit(f"/samples/{sample}/amend", reason="<iframe src=file:///etc/passwd>")
    sign_as(browser, sample)
    assert browser.get(f"/samples/{sample}/report.pdf").status_code == 200
    (page,) = printed
    assert "&lt;iframe src=file:///etc/passwd&gt;" in page
    for tag in ("<img", "<script", "<iframe"):
        assert tag not in page
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_anothers_test_is_out_of_reach_by_its_identifier(
    browser: Browser, station: Station
) -> None:
    browser.log_in("reviewer")
    sample = upload(browser, station)
    sign_as(browser, sample)
    assert browser.submit("/tests", sample=sample, user="technologist").status_code == 200
    with station.store.reading() as connection:
        test = connection.exec_driver_sql("SELECT id FROM tests").scalar_one()
    body = {"label": "basophil", "cells": versions(browser.state(sample)["cells"])}
    for other in ("reviewer", "administrator", "viewer"):
        browser.cookies.clear()
        browser.log_in(other)
        for path in (f"/tests/{test}", f"/tests/{test}/state"):
            assert browser.get(path).status_code == 404
        assert browser.change(f"/tests/{test}/label", body).status_code == 409
        assert browser.submit(f"/tests/{test}/finish").status_code == 409
    browser.cookies.clear()
    browser.log_in("technologist")
    given = {cell["group"] for cell in browser.get(f"/tests/{test}/state").json()["cells"]}
    assert given == {"unidentified"}


def test_a_token_of_another_session_changes_nothing(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    stolen, before = browser.csrf, browser.state(sample)
    browser.cookies.clear()
    browser.log_in("technologist")  # the same person, in another browser
    body = {"label": "basophil", "cells": versions(before["cells"])}
    headers = {"X-CSRF-Token": stolen}
    assert browser.post(f"/samples/{sample}/label", json=body, headers=headers).status_code == 403
    held = browser.cookies[COOKIE]
    with station.store.changing() as connection:
        connection.exec_driver_sql("UPDATE sessions SET seen = seen - 100000")
    assert browser.change(f"/samples/{sample}/label", body).status_code == 401
    browser.cookies.set(COOKIE, held[:-1] + ("A" if held[-1] != "A" else "B"))
    assert browser.change(f"/samples/{sample}/label", body).status_code == 401
    browser.cookies.clear()
    browser.log_in("technologist")
    assert browser.state(sample) == before


def test_an_archive_that_leads_out_of_its_folder_is_kept_in_it(
    browser: Browser, station: Station
) -> None:
    """What the archive's names say is never where a file goes."""
    browser.log_in("technologist")
    content = (station.folders[0] / "slide 1" / "000.png").read_bytes()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in ("../../../tmp/hemascope-out.png", "/etc/hemascope-out.png", "..\\out.png"):
            packed.writestr(name, content)
    headers = {"Content-Type": "application/zip", "X-CSRF-Token": browser.csrf}
    answer = browser.post("/samples/upload?name=x", content=file.getvalue(), headers=headers)
    assert answer.status_code == 201
    with station.store.reading() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM fields").scalars().all()
    assert sorted(rows) == ["hemascope-out.png", "hemascope-out.png (2)", "out.png"]
    kept = {path.name for path in station.store.folder.rglob("*") if path.is_file()}
    assert not [name for name in kept if "out" in name]
