"""The review pages in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from argon2 import PasswordHasher

from drawn_smears import KnownLocator, draw_sample
from hemascope import Classifier
from hemascope.bundle.bundle import read_bundle
from hemascope.serve.counting import Counting
from hemascope.serve.pages.station import Station
from hemascope.serve.store import audit, people
from hemascope.serve.store.database import open_store
from hemascope.serve.store.people import User, add_user
from hemascope.serve.store.review import label_cells, list_cells
from hemascope.serve.store.samples import (
    NewField,
    add_sample,
    find_sample,
    list_images,
    list_samples,
)
from hemascope.serve.store.signing import sign
from served import launched, served

PASSWORD = "correct horse battery"
FIELDS = 6
ADA = User(1, "Ada", "reviewer")
ERRORS: list[str] = []

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("chromium") and not os.environ.get("CI"), reason="apt-get install chromium"
    ),
]


@pytest.fixture(autouse=True)
def no_errors() -> Iterator[None]:
    """Fails a test where a page met an error."""
    ERRORS.clear()
    yield
    assert not ERRORS


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """The model that ships, but unsure of more cells, so that some of the drawn ones are."""
    bundle = read_bundle()
    model = bundle.card.uncertainty
    assert model is not None
    card = replace(bundle.card, uncertainty=replace(model, least_probability=0.97))
    return Classifier(replace(bundle, card=card), threads=1)


@pytest.fixture(scope="module")
def fields() -> int:
    """How many fields the sample has that is shown."""
    return FIELDS


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, classifier: Classifier, fields: int
) -> tuple[Path, KnownLocator]:
    """A store with two people and a sample of drawn fields whose cells are named."""
    folder, locator = tmp_path_factory.mktemp("prepared"), KnownLocator()
    draw_sample(folder / "slide", locator, fields)
    store = open_store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people, "HASHER", PasswordHasher(1, 8, 1))
        for name in ("Ada", "Bob"):
            add_user(store, name, PASSWORD, "reviewer")
    paths = sorted((folder / "slide").iterdir())
    given = [NewField(path.name, path.read_bytes()) for path in paths]
    sample = add_sample(store, ADA, "slide 17", given)
    Station(store, Counting(classifier, locator, "1" * 64))._locate(sample)
    store.close()
    return folder / "store", locator


@pytest.fixture
def station(
    tmp_path: Path,
    classifier: Classifier,
    prepared: tuple[Path, KnownLocator],
    cheap_passwords: None,
) -> Iterator[Station]:
    """A station of its own with a copy of what was prepared."""
    folder, locator = prepared
    store = open_store(Path(shutil.copytree(folder, tmp_path / "store")))
    yield Station(store, Counting(classifier, locator, "1" * 64))
    store.close()


@pytest.fixture
def address(station: Station) -> Iterator[str]:
    """The address at which the station is served."""
    with served(station) as found:
        yield found


@pytest.fixture
def chromium(browser: Any, address: str) -> Iterator[Any]:
    """A browser whose pages are closed before the station is."""
    yield browser
    for context in browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def open_sample(chromium: Any, address: str, name: str) -> Any:
    """A page of somebody's own browser that shows the sample."""
    page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: ERRORS.append(str(error)))
    page.goto(f"{address}/login")
    page.get_by_label("Name").focus()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Samples").wait_for()
    for _ in range(60):
        if page.get_by_role("link", name="slide 17", exact=True).count():
            break
        time.sleep(0.5)
        page.reload()
    page.get_by_role("link", name="slide 17", exact=True).press("Enter")
    page.locator(".cell[title]").first.wait_for()  # its scripts have run
    return page


def sign_all(station: Station, sample: str, label: str) -> int:
    """Gives all cells of a sample a label, signs it as Ada, and gives their number."""
    with station.store.reading() as connection:
        cells = list_cells(connection, sample)
    label_cells(station.store, ADA, sample, {cell.id: cell.version for cell in cells}, label)
    with station.store.reading() as connection:
        stored = find_sample(connection, sample)
    assert stored is not None
    sign(
        station.store,
        ADA,
        sample,
        "reviewer",
        PASSWORD,
        stored.changes,
        lambda connection, stored, found: station.recount(connection, stored, list(found)),
    )
    return len(cells)


def number_in(page: Any, group: str) -> int:
    return int(page.locator(f'[data-group="{group}"] .count').inner_text())


def wait_for_number(page: Any, group: str, number: int) -> None:
    page.wait_for_function(
        '([group, number]) => document.querySelector(`[data-group="${group}"] .count`)'
        ".textContent === String(number)",
        arg=[group, number],
    )


def test_a_sample_is_corrected_and_signed_by_keyboard_alone(
    chromium: Any, address: str, station: Station
) -> None:
    page = open_sample(chromium, address, "Ada")
    cells, unclear = page.locator(".cell").count(), number_in(page, "unidentified")
    assert unclear > 0
    page.locator('[data-group="unidentified"] .cell').first.focus()
    page.keyboard.press("a")  # all from here
    page.keyboard.press("6")  # the sixth class
    wait_for_number(page, "unidentified", 0)
    assert number_in(page, "monocyte") >= unclear
    page.keyboard.press("Control+z")
    wait_for_number(page, "unidentified", unclear)
    page.keyboard.press("Control+y")
    wait_for_number(page, "unidentified", 0)
    assert page.locator(".cell").count() == cells
    page.locator('input[type="password"]').focus()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_text("signed by Ada as technologist").wait_for()
    assert page.locator("#state").inner_text() == "signed"
    page.get_by_role("link", name="Report").press("Enter")
    page.get_by_text("Final, version 1.").wait_for()
    with station.store.reading() as connection:
        assert audit.verify(connection).problems == ()


def test_the_whole_way_from_import_through_thirty_corrections_to_an_amended_report(
    chromium: Any, address: str, station: Station, tmp_path: Path
) -> None:
    page = open_sample(chromium, address, "Ada")
    draw_sample(tmp_path / "large", cast(KnownLocator, station.counting.locator), 18)
    packed = shutil.make_archive(str(tmp_path / "large"), "zip", tmp_path / "large")
    page.goto(f"{address}/")
    upload = page.locator("#upload")
    upload.get_by_label("Sample").fill("slide 19")
    upload.get_by_label("Image, or zip of images").set_input_files(packed)
    upload.get_by_role("button", name="Upload").click()
    page.get_by_role("link", name="slide 19", exact=True).wait_for()  # as it is located and named
    page.get_by_role("link", name="slide 19", exact=True).click()
    page.locator(".cell[title]").first.wait_for()

    ids = [cell.get_attribute("data-id") for cell in page.locator(".cell").all()]
    assert len(ids) >= 30
    for number, cell in enumerate(ids[:30], start=1):
        page.locator(f'.cell[data-id="{cell}"]').click()
        page.keyboard.press("1")  # the first class
        wait_for_corrected(page, number)
    page.get_by_role("button", name="Undo").click()
    wait_for_corrected(page, 29)
    page.get_by_role("button", name="Redo").click()
    wait_for_corrected(page, 30)
    assert number_in(page, "basophil") >= 30
    if number_in(page, "unidentified"):
        page.locator('[data-group="unidentified"] .cell').first.click(button="right")
        page.locator("#from-here").click()
        page.keyboard.press("1")
        wait_for_number(page, "unidentified", 0)

    sign_here(page)
    page.get_by_label("Reason").fill("a smudge was counted")
    page.keyboard.press("Enter")
    page.locator('[data-state="being amended"]').wait_for()
    page.locator(f'.cell[data-id="{ids[0]}"]').click()
    page.keyboard.press("2")
    wait_for_number(page, "eosinophil", 1)
    sign_here(page)
    page.get_by_role("link", name="Report").click()
    page.get_by_text("Amended, version 2.").wait_for()
    page.get_by_text("Amended: a smudge was counted.").first.wait_for()
    with station.store.reading() as connection:
        assert audit.verify(connection).problems == ()


def wait_for_corrected(page: Any, number: int) -> None:
    page.wait_for_function(
        "n => document.querySelectorAll('.cell.corrected').length === n", arg=number
    )


def sign_here(page: Any) -> None:
    page.locator('input[type="password"]').fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_label("Reason").wait_for()  # to amend, as it is signed


def test_cells_are_moved_by_mouse(chromium: Any, address: str) -> None:
    page = open_sample(chromium, address, "Ada")
    cell = page.locator('[data-group="unidentified"] .cell').first
    unclear, basophils = number_in(page, "unidentified"), number_in(page, "basophil")
    cell.drag_to(page.locator('[data-group="basophil"]'))
    wait_for_number(page, "basophil", basophils + 1)
    cell = page.locator('[data-group="unidentified"] .cell').first
    cell.click(button="right")
    page.locator("#menu").get_by_role("menuitem", name="basophils").click()
    wait_for_number(page, "basophil", basophils + 2)
    assert number_in(page, "unidentified") == unclear - 2
    moved = page.locator('[data-group="basophil"] .cell').first
    moved.dblclick()
    page.locator("#large-text").get_by_text("Ada: basophils").wait_for()
    page.get_by_label("Comment").fill("<b>granules</b>")
    page.get_by_role("button", name="Keep").click()
    page.locator('.cell[title*="<b>granules</b>"]').wait_for()


def test_the_second_of_two_sees_what_the_first_did(chromium: Any, address: str) -> None:
    one, two = (open_sample(chromium, address, name) for name in ("Ada", "Bob"))
    unclear, basophils = number_in(one, "unidentified"), number_in(one, "basophil")
    first = one.locator('[data-group="unidentified"] .cell').first
    same = f'.cell[data-id="{first.get_attribute("data-id")}"]'
    first.click()
    one.keyboard.press("1")
    wait_for_number(one, "unidentified", unclear - 1)
    wait_for_number(two, "unidentified", unclear - 1)  # by itself, within seconds
    for page, key in ((one, "2"), (two, "3")):  # both at once: none is lost
        page.locator(same).click()
        page.keyboard.press(key)
    wait_for_number(two, "basophil", basophils)
    labels = [
        page.locator(same).evaluate("cell => cell.closest('.gallery').dataset.group")
        for page in (one, two)
    ]
    assert labels[1] in ("eosinophil", "erythroblast")


def middle_of(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_field_is_zoomed_and_its_cells_are_named_removed_and_added(
    chromium: Any, address: str, station: Station
) -> None:
    page = open_sample(chromium, address, "Ada")
    page.get_by_role("link", name="Field 1", exact=True).click()
    page.locator(".box").first.wait_for()
    cells, whole = page.locator(".box").count(), page.locator("#field").get_attribute("viewBox")
    page.locator("#field").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert page.locator("#field").get_attribute("viewBox") != whole
    page.keyboard.press("Home")
    assert page.locator("#field").get_attribute("viewBox") == whole

    first = page.locator(".box").first
    page.mouse.click(*middle_of(page, ".box"))  # named in place
    assert first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("2")
    page.locator('.box[aria-label*="Ada: eosinophils"]').wait_for()
    first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")  # removed
    page.locator(".box.gone").wait_for()
    page.keyboard.press("Control+z")
    page.locator('.box[aria-label*="Ada: eosinophils"]').wait_for()

    frame = page.locator("#field").bounding_box()
    x, y = frame["x"] + 0.62 * frame["width"], frame["y"] + 0.12 * frame["height"]
    page.keyboard.press("n")  # added by a box
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 45)
    page.mouse.up()
    page.locator('.box[aria-label*="added by Ada"]').wait_for()
    assert page.locator(".box").count() == cells + 1
    page.keyboard.press("n")  # and one in the middle of what is shown, by keyboard alone
    page.locator("#field").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelectorAll('.box').length === n", arg=cells + 2)
    page.locator("h1 a").click()
    page.locator('.cell[title*="added by Ada"]').first.wait_for()
    with station.store.reading() as connection:
        assert audit.verify(connection).problems == ()


def test_a_rubber_band_and_all_from_here_select(chromium: Any, address: str) -> None:
    page = open_sample(chromium, address, "Ada")
    inside = page.locator('[data-group="unidentified"] .cell')
    box = page.locator('[data-group="unidentified"] .cells').bounding_box()
    last = inside.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] - 1)
    page.mouse.down()
    page.mouse.move(last["x"] + 50, last["y"] + 30, steps=4)
    chosen = page.locator('.cell[aria-pressed="true"]').count()
    page.mouse.up()
    assert 0 < chosen <= inside.count()
    assert page.locator(".band").count() == 0
    inside.nth(1).click(button="right")
    page.keyboard.press("Escape")
    inside.nth(1).click(button="right")
    page.locator("#from-here").click()
    selected = page.locator('.cell[aria-pressed="true"]').count()
    assert selected == inside.count() - 1
    inside.first.hover()
    page.locator("#closer").wait_for()  # larger, under the pointer


def test_a_cell_is_compared_with_signed_ones(chromium: Any, address: str, station: Station) -> None:
    page = open_sample(chromium, address, "Ada")
    page.locator('[data-group="unidentified"] .cell').first.dblclick()
    page.get_by_text("No cell of this class has been signed").wait_for()
    page.locator("#likely li").first.wait_for()
    page.get_by_role("button", name="Close").click()
    with station.store.reading() as connection:
        (sample,) = list_samples(connection)
    cells = sign_all(station, sample.id, "basophil")
    again = [
        NewField(name, station.store.images.read(sha256))
        for name, sha256 in read_images(station, sample.id)
    ]
    station.locate(add_sample(station.store, ADA, "slide 18", again))
    page.goto(f"{address}/")
    for _ in range(60):
        if page.get_by_role("link", name="slide 18", exact=True).count():
            break
        time.sleep(0.5)
        page.reload()
    page.get_by_role("link", name="slide 18", exact=True).click()
    page.locator('[data-group="unidentified"] .cell').first.dblclick()
    page.locator("#reference").select_option("basophil")
    page.locator("#references img").first.wait_for()
    assert page.locator("#references img").count() == min(12, cells)


def read_images(station: Station, sample: str) -> list[tuple[str, str]]:
    with station.store.reading() as connection:
        return list_images(connection, sample)


def test_pages_are_in_the_language_of_the_browser(chromium: Any, address: str) -> None:
    page = chromium.new_context(locale="de-DE").new_page()
    page.goto(f"{address}/login")
    page.get_by_label("Kennwort").wait_for()
    assert page.locator("html").get_attribute("lang") == "de"
    page.get_by_text("Nur für Forschungszwecke").wait_for()


def test_a_report_is_printed_by_the_station(chromium: Any, address: str) -> None:
    page = open_sample(chromium, address, "Ada")
    answer = page.request.get(f"{page.url}/report.pdf")
    assert answer.status == 200, answer.text()
    assert answer.body()[:5] == b"%PDF-"
    assert "preliminary-report.pdf" in answer.headers["content-disposition"]
