"""Counts outlive the service that has a store; what waits at a stop is counted after the start."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from drawn_smears import KnownLocator
from hemascope import Classifier
from hemascope.serve.app.create import create_app
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting
from hemascope.smear.records import LocatedField
from test_serve import BEARER, TOKEN, archive, classifier, locator, wait_for

__all__ = ["archive", "classifier", "locator"]  # fixtures


class HeldLocator:
    """A locator that waits until it may go on."""

    def __init__(self, locator: KnownLocator) -> None:
        self.known, self.may_go_on, self.began = locator, threading.Event(), threading.Event()

    def locate(
        self, image: Image.Image, um_per_pixel: float | None = None, path: str = ""
    ) -> LocatedField:
        self.began.set()
        assert self.may_go_on.wait(30)
        return self.known.locate(image, um_per_pixel, path)


@pytest.mark.slow
def test_what_a_stop_left_is_counted_after_the_start(
    classifier: Classifier,
    locator: KnownLocator,
    archive: bytes,
    tmp_path: Path,
) -> None:
    held = HeldLocator(locator)
    settings = Settings(TOKEN, workers=2, drain=0.1)
    headers = BEARER | {"Content-Type": "application/zip", "Idempotency-Key": "once"}
    app = create_app(settings, Counting(classifier, held, "1" * 64), counts=tmp_path)
    with TestClient(app) as client:
        running = client.post("/v1/counts", content=archive, headers=headers).headers["Location"]
        waiting = client.post(
            "/v1/counts?sample=second",
            content=archive,
            headers=BEARER | {"Content-Type": "application/zip"},
        ).headers["Location"]
        cancelled = client.post(
            "/v1/counts?sample=third",
            content=archive,
            headers=BEARER | {"Content-Type": "application/zip"},
        ).headers["Location"]
        client.delete(cancelled, headers=BEARER)
        assert held.began.wait(10)
        threading.Timer(1.0, held.may_go_on.set).start()
    (tmp_path / "torn").mkdir()  # a job whose fields had not arrived when the power failed

    app = create_app(settings, Counting(classifier, locator, "1" * 64), counts=tmp_path)
    with TestClient(app) as client:
        for address in (running, waiting):
            found = wait_for(client, address)
            assert (found["state"], found["fields_done"]) == ("done", found["fields"])
        assert wait_for(client, cancelled)["state"] == "cancelled"
        again = client.post("/v1/counts", content=archive, headers=headers)
        assert again.headers["Location"] == running
    with TestClient(
        create_app(settings, Counting(classifier, locator, "1" * 64), counts=tmp_path)
    ) as client:
        answer = client.get(f"{running}/count.csv", headers=BEARER)
        assert answer.status_code == 200
    assert not (tmp_path / "torn").exists()


@pytest.mark.parametrize("path", ["/v1/counts/x"])
def test_without_a_store_a_count_of_before_is_refused_with_the_reason(
    classifier: Classifier,
    locator: KnownLocator,
    path: str,
) -> None:
    app = create_app(Settings(TOKEN, workers=1), Counting(classifier, locator, "1" * 64))
    with TestClient(app) as client:
        answer = client.get(path, headers=BEARER)
    assert answer.status_code == 404
    assert "--store" in answer.json()["detail"]
