"""All pages of the station under axe: no violation of WCAG, level A or AA, in light or in dark."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from hemascope.bundle.bundle import write_bundle
from hemascope.metrics.intervals import wilson
from hemascope.serve.pages import reports
from hemascope.serve.pages.routes import SHOWN
from hemascope.serve.pages.station import Station
from hemascope.serve.store.bundles import (
    Comparison,
    add_bundle,
    finish_bundle,
    folder_of,
    keep_comparison,
)
from hemascope.serve.store.people import FAILURES, User, add_user, log_in
from hemascope.serve.store.proficiency import finish_test, give_test, label_in_test
from hemascope.serve.store.review import list_cells
from hemascope.serve.store.samples import NewField, add_sample, list_images, list_samples
from hemascope.serve.store.signing import amend
from test_browser import (
    ADA,
    PASSWORD,
    address,
    browser,
    chromium,
    classifier,
    no_errors,
    open_sample,
    prepared,
    pytestmark,
    sign_all,
    station,
)

__all__ = [
    "address",
    "browser",
    "chromium",
    "classifier",
    "no_errors",
    "prepared",
    "pytestmark",
    "station",
]


@pytest.fixture(scope="module")
def fields() -> int:
    """Two, since more would only show more of the same elements, each of which takes time."""
    return 2


LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def make_busy(station: Station) -> dict[str, str]:
    """Signed samples, an open and a finished test of Bob's, a bundle, and a sample that failed."""
    store, bob = station.store, User(2, "Bob", "reviewer")
    with store.reading() as connection:
        (first,) = list_samples(connection)
        (name, sha256), *_ = list_images(connection, first.id)
    content = store.images.read(sha256)
    samples = [add_sample(store, ADA, f"slide {n}", [NewField(name, content)]) for n in range(7)]
    for sample in samples:
        station._locate(sample)
        sign_all(station, sample, "basophil")
    amend(store, ADA, samples[0], "a wrong cell")
    sign_all(station, samples[0], "monocyte")
    taken, finished = (give_test(store, ADA, sample, "Bob") for sample in samples[1:3])
    with store.reading() as connection:
        cells = [cell.id for cell in list_cells(connection, samples[2])]
    label_in_test(store, bob, finished, cells[:1], "monocyte")
    finish_test(store, bob, finished)
    bundle = add_bundle(store, ADA, "ours", "2026-11-28T12:00", 7)
    write_bundle(station.counting.classifier.bundle, folder_of(store, bundle))
    finish_bundle(store, bundle, 14, "only 2 of monocyte")
    found = Comparison("a", "2026", 1, wilson(1, 2), wilson(1, 2), 1, 0)
    keep_comparison(store, bundle, found)
    station._locate(add_sample(store, ADA, "broken", [NewField("a.png", b"x")]))
    return {"id": first.id, "signed": samples[0], "taken": taken, "finished": finished}


def check(page: Any, where: str) -> None:
    """Fails for a violation; in the dark scheme, in which only colours differ, of contrast."""
    from axe_playwright_python.sync_playwright import Axe

    for scheme, rules in {"light": LEVELS, "dark": ["color-contrast"]}.items():
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]})
        assert not found.response["violations"], f"{where}, {scheme}: {found.generate_report()}"


def test_axe_finds_nothing_on_any_page(chromium: Any, address: str, station: Station) -> None:
    """A route that answers with a page must be visited here."""
    page = open_sample(chromium, address, "Bob")
    known = make_busy(station)
    sample, signed = f"/samples/{known['id']}", f"/samples/{known['signed']}"
    visits = {
        "/": ["/"],
        "/samples/{id}": [sample, signed],
        "/samples/{id}/report": [f"{sample}/report", f"{signed}/report"],
        "/samples/{id}/fields/{number:int}": [f"{sample}/fields/0"],
        "/quality": ["/quality"],
        "/quality/drift": ["/quality/drift"],
        "/learn": ["/learn"],
        "/tests/{id}": [f"/tests/{known['taken']}", f"/tests/{known['finished']}"],
        "a problem": ["/samples/none"],
    }
    for path in itertools.chain(*visits.values()):
        page.goto(f"{address}{path}")
        page.locator("h1").wait_for()
        check(page, path)
    add_user(station.store, "Root", PASSWORD, "administrator")
    for _ in range(FAILURES):
        assert log_in(station.store, "Bob", "a wrong password") is None
    root = open_sample(chromium, address, "Root")
    root.goto(f"{address}/users")
    root.get_by_role("button", name="Unlock Bob").wait_for()
    check(root, "/users")
    for path, _, _ in SHOWN:
        if path not in (*visits, "/users"):
            place = path.replace("{id}", known["id"]).replace("{name}", "count.json")
            answer = page.request.get(address + re.sub(r"\{\w+:int\}", "1", place))
            assert not answer.headers["content-type"].startswith("text/html"), path


def test_axe_finds_nothing_in_what_opens_on_a_page(chromium: Any, address: str) -> None:
    page = open_sample(chromium, address, "Ada")
    cell = page.locator(".cell").first
    cell.dblclick()
    page.locator("#likely li").first.wait_for()
    check(page, "one cell, large")
    page.get_by_role("button", name="Close").click()
    cell.click(button="right")
    page.locator("#menu").wait_for()
    check(page, "the menu")


def test_axe_finds_nothing_before_somebody_has_logged_in(chromium: Any, address: str) -> None:
    page = chromium.new_context().new_page()
    page.goto(f"{address}/login")
    check(page, "to log in")
    for name in ("name", "password"):
        page.locator(f"[name={name}]").fill("nobody")
    page.keyboard.press("Enter")
    page.locator(".problem").wait_for()
    check(page, "to log in, refused")


def test_axe_finds_nothing_in_what_is_printed(
    chromium: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "printed.html"
    monkeypatch.setattr(reports, "print_page", lambda page: bytes(file.write_text(page) > 0))
    page = open_sample(chromium, address, "Ada")
    assert page.request.get(f"{page.url}/report.pdf").status == 200
    page.goto(file.as_uri())
    page.locator("h1").wait_for()
    check(page, "printed")
