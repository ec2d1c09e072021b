"""The review pages over HTTP: the whole way, and those who try to get round it."""

from __future__ import annotations

import html
import io
import json
import re
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from drawn_smears import KnownLocator, draw_sample
from hemascope import Classifier, open_manifest
from hemascope.bundle.bundle import Bundle
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.create import create_app
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting
from hemascope.serve.pages import learning
from hemascope.serve.pages.access import COOKIE
from hemascope.serve.pages.routes import CHANGED, make_pages
from hemascope.serve.pages.station import Station
from hemascope.serve.store import audit
from hemascope.serve.store.bundles import chosen_folder
from hemascope.serve.store.database import open_store
from hemascope.serve.store.labels import UNIDENTIFIED
from hemascope.serve.store.people import add_user
from hemascope.serve.store.signed_labels import export_labels

PASSWORD = "correct horse battery"
NAME = "<script>alert(1)</script> =1+1|^~\\&"
FIELDS = 3
ROLES = ("viewer", "technologist", "reviewer", "administrator")


class Browser(TestClient):
    """A client that keeps its session, and sends the token of its pages."""

    csrf = ""

    def log_in(self, name: str) -> None:
        answer = self.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 200
        found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
        assert found
        self.csrf = found[1]

    def change(self, path: str, body: dict[str, Any]) -> Any:
        return self.post(path, json=body, headers={"X-CSRF-Token": self.csrf})

    def submit(self, path: str, **form: object) -> Any:
        data = {name: str(value) for name, value in form.items()}
        return self.post(path, data=data | {"csrf": self.csrf})

    def state(self, sample: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/samples/{sample}/state").json()
        return found


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(threads=1)


@pytest.fixture
def station(tmp_path: Path, classifier: Classifier, cheap_passwords: None) -> Iterator[Station]:
    """A station that runs, with a person of each role, and a folder to import from."""
    locator = KnownLocator()
    draw_sample(tmp_path / "slides" / "slide 1", locator, FIELDS)
    (tmp_path / "slides" / "out").symlink_to("/etc")
    store = open_store(tmp_path / "store")
    for role in ROLES:
        add_user(store, role, PASSWORD, role)
    yield Station(store, Counting(classifier, locator, "1" * 64), (tmp_path / "slides",))
    store.close()


@pytest.fixture
def browser(station: Station) -> Iterator[Browser]:
    settings = Settings("a token for tests only", workers=1)
    app = create_app(settings, station.counting, make_pages(station, settings), station.running)
    with Browser(app) as found:
        yield found


def upload(browser: Browser, station: Station, name: str = NAME, level: int = 6) -> str:
    """Uploads the drawn fields as a zip, and waits until they are located.

    With another level, the same pixels are another file.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted((station.folders[0] / "slide 1").iterdir()):
            image = io.BytesIO()
            Image.open(path).save(image, "PNG", compress_level=level)
            packed.writestr(f"<b>{path.name}", image.getvalue())
    headers = {"Content-Type": "application/zip", "X-CSRF-Token": browser.csrf}
    answer = browser.post(
        "/samples/upload", params={"name": name}, content=file.getvalue(), headers=headers
    )
    assert answer.status_code == 201, answer.text
    sample = str(answer.json()["id"])
    wait(browser, sample)
    return sample


def wait(browser: Browser, sample: str) -> None:
    for _ in range(600):
        if browser.state(sample)["state"] != "importing":
            return
        time.sleep(0.05)
    raise AssertionError("the import did not end")


def versions(cells: list[dict[str, Any]]) -> dict[str, int]:
    return {str(cell["id"]): cell["version"] for cell in cells}


def settle(browser: Browser, sample: str) -> dict[str, Any]:
    unclear = [c for c in browser.state(sample)["cells"] if c["group"] == UNIDENTIFIED]
    answer = browser.change(
        f"/samples/{sample}/label", {"label": UNIDENTIFIED, "cells": versions(unclear)}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check_exported(station: Station, folder: Path, cells: list[dict[str, Any]]) -> None:
    """Signed labels are rows that the classifier reads, and names as the station's machine did."""
    labels = [cell["group"] for cell in cells if cell["group"] != UNIDENTIFIED]
    assert export_labels(station.store, folder, "ours") == len(labels)
    manifest = open_manifest(folder / "labels.csv")
    assert sorted(row.label for row in manifest.rows) == sorted(labels)
    assert {row.laboratory for row in manifest.rows} == {"ours"}
    made = station.counting.classifier.predict(manifest.views())
    assert all(prediction.status == "ok" for prediction in made)
    machine = {round(cell["probability"], 2) for cell in cells}
    assert {round(prediction.probability or 0, 2) for prediction in made} <= machine


@pytest.mark.slow
def test_the_whole_way_from_import_to_amended_report(
    browser: Browser, station: Station, tmp_path: Path
) -> None:
    browser.log_in("reviewer")
    sample = upload(browser, station)
    page = browser.get(f"/samples/{sample}").text
    assert RESEARCH_USE_ONLY in page
    state = browser.state(sample)
    assert page.count('"group":') == len(state["cells"]) > 0
    assert any(cell["group"] == UNIDENTIFIED for cell in state["cells"])
    assert "preliminary" in browser.get(f"/samples/{sample}/count.fhir.json").text
    refused = browser.submit(
        f"/samples/{sample}/sign", meaning="reviewer", password=PASSWORD, changes=0
    )
    assert refused.status_code == 409
    assert "unidentified" in refused.json()["detail"]

    state = settle(browser, sample)
    cell = state["cells"][-1]
    body = {"label": "basophil", "cells": versions([cell])}
    after = browser.change(f"/samples/{sample}/label", body).json()
    changed = next(c for c in after["cells"] if c["id"] == cell["id"])
    assert (changed["group"], changed["by"]) == ("basophil", "reviewer")
    assert changed["probability"] == cell["probability"]  # the machine's stays
    undone = browser.change(f"/samples/{sample}/undo", {}).json()
    assert next(c for c in undone["cells"] if c["id"] == cell["id"])["group"] == cell["group"]
    redone = browser.change(f"/samples/{sample}/redo", {}).json()
    assert redone["rows"] == after["rows"]

    signed = browser.submit(
        f"/samples/{sample}/sign",
        meaning="reviewer",
        password=PASSWORD,
        changes=redone["changes"],
    )
    assert signed.status_code == 200, signed.text
    assert "signed by reviewer as reviewer" in signed.text
    late = browser.change(f"/samples/{sample}/label", body | {"cells": versions(redone["cells"])})
    assert late.status_code == 409
    bundle = browser.get(f"/samples/{sample}/count.fhir.json").json()
    assert bundle["entry"][0]["resource"]["status"] == "final"
    assert "|F" in browser.get(f"/samples/{sample}/count.hl7").text
    count = json.loads(browser.get(f"/samples/{sample}/count.json").content)
    basophils = next(row for row in count["classes"] if row["name"] == "basophil")
    shown = next(row for row in redone["rows"] if row["title"] == basophils["title"])
    assert str(basophils["share"]["successes"]) == shown["cells"]

    check_exported(station, tmp_path / "labels", redone["cells"])

    browser.submit(f"/samples/{sample}/amend", reason="a smudge was counted")
    assert browser.state(sample)["state"] == "being amended"
    assert "preliminary" in browser.get(f"/samples/{sample}/count.fhir.json").text
    browser.submit(
        f"/samples/{sample}/sign",
        meaning="reviewer",
        password=PASSWORD,
        changes=browser.state(sample)["changes"],
    )
    report = browser.get(f"/samples/{sample}/report").text
    assert "Amended" in report
    assert "a smudge was counted" in report
    with station.store.reading() as connection:
        assert audit.verify(connection).problems == ()


@pytest.mark.slow
def test_markup_in_names_and_comments_stays_text(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    cell = browser.state(sample)["cells"][0]
    comment = "</script><img src=x onerror=alert(1)>"
    body = {"cell": cell["id"], "version": cell["version"], "comment": comment}
    assert browser.change(f"/samples/{sample}/comment", body).status_code == 200
    for path in ("/", f"/samples/{sample}", f"/samples/{sample}/report"):
        text = browser.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<b>0" not in text
    field = browser.get(f"/samples/{sample}/fields/0").text
    assert "&lt;b&gt;000.png" in field
    embedded = re.search(r'id="cells">(.*?)</script>', browser.get(f"/samples/{sample}").text)
    assert embedded
    assert json.loads(embedded[1])["cells"][0]["comment"] == comment
    table = browser.get(f"/samples/{sample}/count.csv")
    assert table.headers["Hemascope-Notice"] == RESEARCH_USE_ONLY
    assert "\n" not in table.headers["Content-Disposition"]
    hl7 = browser.get(f"/samples/{sample}/count.hl7").text
    assert "=1+1\\F\\\\S\\\\R\\\\E\\\\T\\" in hl7


@pytest.mark.slow
def test_images_are_shown_to_those_who_logged_in_only(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    named = next(cell for cell in browser.state(sample)["cells"] if cell["machine"])
    for path, size in (
        (f"/cells/{named['id']}/small.png", (96, 96)),
        (f"/cells/{named['id']}/large.png", (480, 480)),
        (f"/cells/{named['id']}/map.png", (480, 480)),
        (f"/samples/{sample}/fields/0/image.png", (560, 420)),
    ):
        assert Image.open(io.BytesIO(browser.get(path).content)).size == size
    for path in ("/cells/999999/small.png", f"/samples/{sample}/fields/99", "/samples/x"):
        assert browser.get(path).status_code == 404
    browser.cookies.clear()
    for path in ("/", f"/samples/{sample}", f"/cells/{named['id']}/small.png"):
        answer = browser.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login")


def test_each_change_needs_the_role_the_token_and_the_own_site(
    browser: Browser, station: Station
) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    body = {"label": "basophil", "cells": versions(browser.state(sample)["cells"])}
    before = browser.state(sample)
    changes = ("label", "undo", "redo", "comment", "sign", "amend", "discard")
    for name in changes:
        path = f"/samples/{sample}/{name}"
        assert browser.post(path, json=body).status_code == 403  # no token
        assert browser.post(path, json=body, headers={"X-CSRF-Token": "x"}).status_code == 403
        other = {"X-CSRF-Token": browser.csrf, "Sec-Fetch-Site": "cross-site"}
        assert browser.post(path, json=body, headers=other).status_code == 403
        assert browser.get(path).status_code in (404, 405)
    assert browser.submit(f"/samples/{sample}/amend", reason="x").status_code == 403
    held = browser.cookies[COOKIE]
    browser.cookies.clear()
    browser.log_in("viewer")
    assert browser.cookies[COOKIE] != held
    for name in changes:
        assert browser.change(f"/samples/{sample}/{name}", body).status_code == 403
    headers = {"Content-Type": "image/png", "X-CSRF-Token": browser.csrf}
    assert browser.post("/samples/upload?name=x", content=b"x", headers=headers).status_code == 403
    browser.cookies.clear()
    for name in changes:
        assert browser.change(f"/samples/{sample}/{name}", body).status_code == 401
    browser.cookies.set(COOKIE, held)
    assert browser.state(sample) == before


def test_a_session_is_not_one_that_the_browser_chose(browser: Browser) -> None:
    browser.cookies.set(COOKIE, "chosen")
    answer = browser.post(
        "/login", data={"name": "viewer", "password": PASSWORD}, follow_redirects=False
    )
    cookie = answer.headers["Set-Cookie"]
    assert "chosen" not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    browser.cookies.clear()
    browser.log_in("viewer")
    held = browser.cookies[COOKIE]
    browser.submit("/logout")
    browser.cookies.set(COOKIE, held)
    assert browser.get("/", follow_redirects=False).status_code == 303  # it has ended here too


def test_only_allowed_folders_are_imported(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    assert "slides/slide 1" in browser.get("/").text
    for folder in ("0/../../etc", "/etc", "0/out", "1/slide 1", "0/slide 1/../..", ""):
        assert browser.submit("/samples/import", folder=folder).status_code == 404
    assert browser.submit("/samples/import", folder="0/slide 1").status_code == 200
    assert "slide 1" in browser.get("/").text


def test_what_cannot_be_located_says_why_and_can_be_discarded(
    browser: Browser, station: Station
) -> None:
    browser.log_in("technologist")
    headers = {"Content-Type": "image/png", "X-CSRF-Token": browser.csrf}
    answer = browser.post("/samples/upload?name=bad", content=b"no image", headers=headers)
    sample = answer.json()["id"]
    wait(browser, sample)
    page = browser.get("/").text
    assert "could be read" in page
    assert str(station.store.images.folder) not in page
    browser.submit(f"/samples/{sample}/discard")
    assert "could be read" not in browser.get("/").text


def test_pages_allow_nothing_from_elsewhere(browser: Browser) -> None:
    for path in ("/login", "/static/review.js", "/static/../routes.py", "/nothing"):
        answer = browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
    page = browser.get("/login").text
    assert "http://" not in page
    assert "https://" not in page
    assert "style=" not in page
    assert browser.get("/static/../routes.py").status_code == 404
    assert browser.get("/static/%2e%2e/routes.py").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"label": "basophil"},
        {"label": "basophil", "cells": {}},
        {"label": "basophil", "cells": {"x": 1}},
        {"label": "basophil", "cells": {"1": "1"}},
        {"label": "basophil", "cells": {"1": True}},
        {"label": "basophil", "cells": {"9" * 30: 1}},
        {"label": "basophil", "cells": [1]},
        {"label": "'; DROP TABLE cells; --", "cells": {"1": 1}},
        {"label": 5, "cells": {"1": 1}},
    ],
)
def test_a_body_of_another_form_is_refused(
    browser: Browser, station: Station, body: dict[str, Any]
) -> None:
    browser.log_in("technologist")
    assert browser.change("/samples/nothing/label", body).status_code == 400


def sign_as(browser: Browser, sample: str, label: str = "") -> None:
    """Labels what is unidentified, or all, and signs."""
    state = settle(browser, sample)
    if label:
        body = {"label": label, "cells": versions(state["cells"])}
        state = browser.change(f"/samples/{sample}/label", body).json()
    form = {"meaning": "technologist", "password": PASSWORD, "changes": state["changes"]}
    assert browser.submit(f"/samples/{sample}/sign", **form).status_code == 200


def test_a_missed_cell_is_added_and_named_by_the_model(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    before = browser.state(sample)
    path = f"/samples/{sample}/fields/0/add"
    for box in ([1, 2, 3], ["x"] * 4, [1e400] * 4, [float("nan")] * 4, [9, 9, 12, 12], None):
        answer = browser.post(
            path,
            content=json.dumps({"box": box}),
            headers={"X-CSRF-Token": browser.csrf, "Content-Type": "application/json"},
        )
        assert answer.status_code == 400, answer.text
    assert browser.change(f"/samples/{sample}/fields/99/add", {"box": [9] * 4}).status_code == 404
    after = browser.change(path, {"box": [250, 150, 320, 220]}).json()
    added = next(cell for cell in after["cells"] if cell["id"] == after["added"])
    assert (added["added"], bool(added["machine"])) == ("technologist", True)
    assert len(after["cells"]) == len(before["cells"]) + 1
    image = browser.get(f"/cells/{added['id']}/small.png")
    assert Image.open(io.BytesIO(image.content)).size == (96, 96)
    assert browser.get(f"/cells/{added['id']}/probabilities").json()["likely"][0][1] > 0


@pytest.mark.slow
def test_quality_is_measured_and_somebody_is_tested(browser: Browser, station: Station) -> None:
    browser.log_in("reviewer")
    assert "No sample has been signed yet" in browser.get("/quality").text
    sample = upload(browser, station)
    browser.get(f"/samples/{sample}")
    sign_as(browser, sample)
    page = browser.get("/quality").text
    assert "Kappa (95 % interval)" in page
    assert RESEARCH_USE_ONLY in page
    assert (
        "reviewer has reviewed"
        in browser.submit("/tests", sample=sample, user="reviewer").json()["detail"]
    )
    assert browser.submit("/tests", sample=sample, user="technologist").status_code == 200
    assert "too few samples" in browser.get("/quality/drift").text

    browser.cookies.clear()
    browser.log_in("technologist")
    found = re.search(r'href="/tests/([^"]+)"', browser.get("/").text)
    assert found
    test = f"/tests/{found[1]}"
    cells = browser.get(f"{test}/state").json()["cells"]
    first = cells[0]["id"]
    hidden = (f"/samples/{sample}", f"/samples/{sample}/state", f"/samples/{sample}/count.json")
    for path in (*hidden, f"/cells/{first}/map.png", f"/cells/{first}/probabilities"):
        assert browser.get(path).status_code == 403
    assert browser.get(f"/cells/{first}/large.png").status_code == 200
    page = browser.get(test).text
    assert "machine" not in page.split('id="review"')[1].split('id="texts"')[0]
    body = {"label": "basophil", "cells": versions(cells)}
    assert browser.change(f"{test}/label", body).json()["cells"][0]["group"] == "basophil"
    assert "n = " in browser.submit(f"{test}/finish").text
    assert browser.get(f"/samples/{sample}").status_code == 200
    assert "technologist" in browser.get("/quality").text


@pytest.mark.slow
def test_the_station_learns_from_what_was_signed(browser: Browser, station: Station) -> None:
    browser.log_in("administrator")
    assert browser.submit("/learn", name="ours", left_out=0).status_code == 409
    for level, label in enumerate(("basophil", "monocyte", "lymphocyte")):
        sign_as(browser, upload(browser, station, label, level + 1), label)
    assert browser.submit("/learn", name="ours", left_out=1).status_code == 200
    for _ in range(1200):
        page = browser.get("/learn").text
        if "data-training" not in page and "2 samples" in page:
            break
        time.sleep(0.1)
    for _ in range(300):  # the comparison
        page = browser.get("/learn").text
        if "right by the new one" in page:
            break
        time.sleep(0.1)
    assert "right by the new one" in page, page
    found = re.search(r'name="bundle" value="([0-9a-f]+)"', page)
    assert found
    assert browser.submit("/learn/switch", bundle=found[1]).status_code == 200
    folder = chosen_folder(station.store)
    assert folder is not None
    assert Classifier(folder, threads=1).card.adaptation is not None
    with station.store.reading() as connection:
        actions = [entry["action"] for entry in audit.read_entries(connection)]
        assert audit.verify(connection).problems == ()
    assert actions[-4:] == ["learn", "learnt", "compare", "switch bundle"]
    browser.cookies.clear()
    browser.log_in("technologist")
    assert browser.get("/learn").status_code == 403
    assert browser.submit("/learn/switch", bundle=found[1]).status_code == 403


@pytest.mark.slow
def test_pages_are_in_the_language_of_the_browser(browser: Browser, station: Station) -> None:
    browser.log_in("technologist")
    sample = upload(browser, station)
    german = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}
    page = browser.get(f"/samples/{sample}", headers=german).text
    assert '<html lang="de">' in page
    assert "nicht erkannt" in page
    assert '<html lang="en">' in browser.get("/", headers={"Accept-Language": "fr"}).text
    sign_as(browser, sample)
    page = html.unescape(browser.get(f"/samples/{sample}/report", headers=german).text)
    count = browser.get(f"/samples/{sample}/count.json", headers=german).json()
    sentences = [flag["text"] for flag in count["flags"]]
    sentences += re.split(r"(?<=\.) (?=[A-Z])", count["method"])
    assert len(sentences) > 6
    assert not [sentence for sentence in sentences if sentence.rstrip(".") in page]
    assert not re.search(r"\b(interval|cells|signed|unlike|were|where)\b", page.split("<main>")[1])
    assert "Nenner" in page


def test_what_is_refused_is_said_in_the_language_of_the_pages(browser: Browser) -> None:
    browser.log_in("technologist")
    german = {"Accept-Language": "de"}
    answer = browser.get("/samples/x", headers=german | {"Accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "diese Probe gibt es nicht" in answer.text
    assert "Nur für Forschungszwecke" in answer.text
    answer = browser.get("/samples/x/state", headers=german)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == "diese Probe gibt es nicht"
    answer = browser.get("/learn", headers=german)
    assert answer.json()["detail"] == "dafür braucht es die Rolle Prüfung; Ihre ist Technik"
    answer = browser.post("/login", content=b"[", headers=german | {"Content-Type": "text/csv"})
    assert answer.json()["detail"] == "bitte ein Formular oder JSON senden"


def test_no_change_is_made_without_a_session_its_token_and_the_role(browser: Browser) -> None:
    paths = [
        (re.sub(r"\{\w+:int\}", "0", path.replace("{id}", "x")), role) for path, _, role in CHANGED
    ]
    for path, _ in paths:
        assert browser.post(path, json={}).status_code == 401
    browser.log_in("administrator")
    for path, _ in paths:
        other = {"X-CSRF-Token": browser.csrf, "Sec-Fetch-Site": "cross-site"}
        for headers in ({}, {"X-CSRF-Token": "x"}, other):
            assert browser.post(path, json={}, headers=headers).status_code == 403
    for role, below in (
        ("administrator", "reviewer"),
        ("reviewer", "technologist"),
        ("technologist", "viewer"),
    ):
        browser.cookies.clear()
        browser.log_in(below)
        for path, needed in paths:
            if needed == role:
                assert browser.change(path, {}).status_code == 403


@pytest.mark.slow
def test_what_is_doubtful_of_cells_is_shown_without_catching_warnings(
    browser: Browser, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To catch them changes the filters of all threads."""
    filters = warnings.filters

    def adapt(bundle: Bundle, *_: object, doubts: Callable[[str], None]) -> Bundle:
        if warnings.filters is filters:
            doubts("only 2 of monocyte")
        return bundle

    monkeypatch.setattr(learning, "adapt", adapt)
    browser.log_in("reviewer")
    sign_as(browser, upload(browser, station), "basophil")
    assert browser.submit("/learn", name="ours", left_out=0).status_code == 200
    for _ in range(300):
        page = browser.get("/learn").text
        if "data-training" not in page:
            break
        time.sleep(0.1)
    assert "only 2 of monocyte" in page


@pytest.mark.slow
def test_a_stop_gives_up_what_is_being_learnt(browser: Browser, station: Station) -> None:
    browser.log_in("reviewer")
    for level, label in enumerate(("basophil", "monocyte")):
        sign_as(browser, upload(browser, station, label, level + 1), label)
    station.learning._stopping.set()
    assert browser.submit("/learn", name="ours", left_out=0).status_code == 200
    for _ in range(300):
        page = browser.get("/learn").text
        if "data-training" not in page:
            break
        time.sleep(0.1)
    assert "stopped while it learnt" in page
