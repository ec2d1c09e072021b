"""The service over HTTP: predictions, problems, the token, counts, and what it says of itself."""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from openapi_spec_validator import validate
from PIL import Image
from starlette.testclient import TestClient

from drawn import draw_cell
from drawn_smears import KnownLocator, draw_sample
from hemascope import Classifier
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.create import create_app
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting

TOKEN = "a token for tests only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PNG = BEARER | {"Content-Type": "image/png"}
FIELDS = 3


def png_of(image: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG")
    return file.getvalue()


CELLS = {name: png_of(draw_cell(name, seed=1)) for name in ("monocyte", "lymphocyte", "neutrophil")}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(threads=2)


@pytest.fixture(scope="module")
def locator() -> KnownLocator:
    return KnownLocator()


@pytest.fixture(scope="module")
def client(classifier: Classifier, locator: KnownLocator) -> Iterator[TestClient]:
    settings = Settings(TOKEN, largest_image=200_000, largest_archive=4_000_000, workers=2)
    app = create_app(settings, Counting(classifier, locator, "1" * 64))
    with TestClient(app) as found:
        yield found


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, locator: KnownLocator) -> bytes:
    """A zip of drawn fields, with a text file and a name that points out of its folder."""
    folder = tmp_path_factory.mktemp("slide")
    draw_sample(folder, locator, FIELDS)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number, path in enumerate(sorted(folder.iterdir())):
            packed.write(path, f"../../<q7>{number}.png")
        packed.writestr("notes.txt", "no image")
    return file.getvalue()


def wait_for(client: TestClient, address: str) -> dict[str, Any]:
    """The state of a count, when it is over."""
    for _ in range(600):
        found: dict[str, Any] = client.get(address, headers=BEARER).json()
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_prediction_is_the_librarys(client: TestClient, classifier: Classifier) -> None:
    for content in CELLS.values():
        answer = client.post("/v1/predictions", content=content, headers=PNG)
        assert answer.status_code == 200
        (own,) = classifier.predict([content])
        found = answer.json()
        assert found["label"] == own.label
        assert found["probabilities"] == pytest.approx(own.probabilities, abs=1e-4)
        assert found["model_sha256"] == own.model_sha256
        assert own.uncertainty is not None
        assert found["uncertainty"]["review"] == own.uncertainty.review
        assert found["research_use_only"] == RESEARCH_USE_ONLY
        assert answer.headers["Hemascope-Notice"] == RESEARCH_USE_ONLY


def test_the_scale_is_used(client: TestClient, classifier: Classifier) -> None:
    content = CELLS["monocyte"]
    found = client.post("/v1/predictions?um_per_pixel=0.2", content=content, headers=PNG).json()
    (own,) = classifier.predict([content], um_per_pixel=0.2)
    assert found["probabilities"] == pytest.approx(own.probabilities, abs=1e-4)
    assert found["region"] == {"centre": None, "um_per_pixel": 0.2}


def test_lines_are_answered_in_order_and_a_bad_one_costs_no_other(client: TestClient) -> None:
    images = [CELLS["monocyte"], b"no image", CELLS["neutrophil"]]
    lines = [
        {"id": f"cell {number}", "image": base64.b64encode(content).decode()}
        for number, content in enumerate(images)
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    headers = BEARER | {"Content-Type": "application/x-ndjson"}
    answer = client.post("/v1/predictions", content=body, headers=headers)
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["image_id"] for row in found] == ["cell 0", "cell 1", "cell 2"]
    assert [row["status"] == "ok" for row in found] == [True, False, True]
    alone = client.post("/v1/predictions", content=images[2], headers=PNG).json()
    assert found[2]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)


def test_the_class_map_is_a_png_of_the_networks_size(
    client: TestClient, classifier: Classifier
) -> None:
    address = "/v1/predictions?class_map=true"
    found = client.post(address, content=CELLS["monocyte"], headers=PNG).json()
    drawn = Image.open(io.BytesIO(base64.b64decode(found["class_map_png"])))
    assert drawn.size == (classifier.card.input.size,) * 2
    assert np.asarray(drawn).max() > 200
    plain = client.post("/v1/predictions", content=CELLS["monocyte"], headers=PNG).json()
    assert plain["class_map_png"] is None


@pytest.mark.parametrize(
    ("address", "content", "kind", "status", "words"),
    [
        ("/v1/predictions", b"no image", "image/png", 422, "cannot be used"),
        ("/v1/predictions", b"", "image/png", 400, "empty"),
        ("/v1/predictions", b"x", "text/plain", 415, "Content-Type"),
        ("/v1/predictions", b"x" * 200_001, "image/png", 413, "200000 bytes"),
        ("/v1/predictions?um_per_pixel=nan", b"x", "image/png", 400, "um_per_pixel"),
        ("/v1/predictions?um_per_pixel=1&um_per_pixel=1", b"x", "image/png", 400, "twice"),
        ("/v1/predictions?model=/etc/passwd", b"x", "image/png", 400, "unknown parameter"),
        ("/v1/predictions", b"{", "application/x-ndjson", 400, "line 1"),
        ("/v1/predictions", b'{"image": "?"}', "application/x-ndjson", 400, "base 64"),
        ("/v1/predictions", b"[" * 100_000, "application/x-ndjson", 400, "line 1"),
        ("/v1/predictions", b"\n", "application/x-ndjson", 400, "no line"),
        ("/v1/counts", b"no zip", "application/zip", 422, "no zip"),
        ("/v1/counts?wbc=-1", b"x", "application/zip", 400, "wbc"),
        ("/v1/counts?sample=%0A", b"x", "application/zip", 400, "sample"),
        ("/v1/counts", b"x", "multipart/form-data", 415, "Content-Type"),
    ],
)
def test_what_is_wrong_is_a_problem(
    client: TestClient, address: str, content: bytes, kind: str, status: int, words: str
) -> None:
    headers = BEARER | {"Content-Type": kind}
    answer = client.post(address, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert answer.json()["status"] == status


def test_nothing_but_health_is_open(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").status_code == 200
    wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}]
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/counts/x", "/v1", "/v1x"):
        for headers in wrong:
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/v1/nothing", headers=BEARER).json()["title"] == "Not Found"
    assert client.get("/v1/predictions", headers=BEARER).status_code == 405


def test_the_service_describes_itself(client: TestClient, classifier: Classifier) -> None:
    description = client.get("/openapi.json", headers=BEARER).json()
    validate(description)
    served = {route.path for route in client.app.routes}  # type: ignore[attr-defined]
    assert served - {"/openapi.json"} == set(description["paths"])
    (model,) = client.get("/v1/models", headers=BEARER).json()["models"]
    assert model["model_sha256"] == classifier.card.model_sha256
    assert model["classes"] == list(classifier.card.classes.names)


def test_metrics_count_the_requests(client: TestClient) -> None:
    def count() -> float:
        text = client.get("/metrics", headers=BEARER).text
        name = 'hemascope_requests_total{method="POST",code="422"} '
        return sum(
            float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)
        )

    before = count()
    for _ in range(3):
        client.post("/v1/predictions", content=b"no image", headers=PNG)
    assert count() == before + 3


def test_a_count_is_followed_to_its_files(client: TestClient, archive: bytes) -> None:
    headers = BEARER | {"Content-Type": "application/zip", "Idempotency-Key": "once"}
    address = "/v1/counts?sample=slide+%3Cq7%3E&wbc=7"
    taken = client.post(address, content=archive, headers=headers)
    assert taken.status_code == 202
    again = client.post(address, content=archive, headers=headers)
    assert again.headers["Location"] == taken.headers["Location"]
    other = client.post("/v1/counts", content=archive, headers=headers)
    assert other.status_code == 422
    found = wait_for(client, taken.headers["Location"])
    assert found["state"] == "done", found
    assert found["fields_done"] == FIELDS
    files = {
        name: client.get(path, headers=BEARER).content for name, path in found["files"].items()
    }
    count = json.loads(files["count.json"])
    assert (count["fields"], count["sample"]) == (FIELDS, "slide <q7>")
    assert json.loads(files["count.fhir.json"])["resourceType"] == "Bundle"
    assert b"slide <q7>" in files["count.hl7"]
    assert b"<q7>" not in files["report.html"]
    assert files["report.html"].count(b"&lt;q7&gt;") > 1
    for content in files.values():
        assert b"hemascope-serve-" not in content  # no path of the server's
    assert client.delete(taken.headers["Location"], headers=BEARER).status_code == 204
    assert client.get(taken.headers["Location"], headers=BEARER).status_code == 404


def test_a_count_can_be_cancelled_and_one_that_fails_says_why(
    client: TestClient, archive: bytes
) -> None:
    headers = BEARER | {"Content-Type": "application/zip"}
    places = [
        client.post("/v1/counts", content=archive, headers=headers).headers["Location"]
        for _ in range(2)
    ]
    assert client.delete(places[1], headers=BEARER).status_code == 202
    assert wait_for(client, places[1])["state"] == "cancelled"
    assert client.get(f"{places[1]}/count.json", headers=BEARER).status_code == 409
    assert wait_for(client, places[0])["state"] == "done"
    blank = png_of(np.full((300, 400, 3), 240, np.uint8))
    failed = client.post("/v1/counts", content=blank, headers=PNG).headers["Location"]
    found = wait_for(client, failed)
    assert found["state"] == "failed"
    assert "no cell was found" in found["problem"]
