"""How fast a person reviews a sample of 200 cells with 6 wrong: a scripted expert in a browser.

    python benchmarks/review_speed.py --out docs/evaluation/review_speed.json

The expert knows each cell. A look at a row of a gallery takes one second, and so does each click,
key or password; the time that the pages themselves take is measured and added. Beside it: the same
sample where each cell is looked at by itself and given its label, with a click and a key. The cells
are drawn, and their labels are set; no network is asked. It needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from hemascope import Classifier, Prediction
from hemascope.data.synthetic_fields import draw_field
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.serve.app.pictures import to_png
from hemascope.serve.counting import Counting
from hemascope.serve.pages.station import Station
from hemascope.serve.store.database import Store, open_store
from hemascope.serve.store.people import User, add_user
from hemascope.serve.store.samples import NewField, add_sample, fill_sample
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import LocatedCell
from served import launched, served

PASSWORD = "correct horse battery"
MIX = {"neutrophil": 60, "lymphocyte": 30, "monocyte": 6, "eosinophil": 3, "basophil": 1}
PER_FIELD, WIDTH, HEIGHT, RED = 1, 420, 340, 71.0
LOOK, ACTION = 1.0, 1.0  # seconds


@dataclass
class Review:
    """What a review took: looks, actions, and the seconds that the pages took."""

    looks: int = 0
    actions: int = 0
    pages: float = 0.0
    began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def seconds(self) -> float:
        """Of the person and the pages together."""
        return LOOK * self.looks + ACTION * self.actions + self.pages

    def end(self) -> Review:
        """The review, with the time that the pages took."""
        self.pages = time.perf_counter() - self.began
        return self

    def describe(self) -> dict[str, float]:
        """Its figures."""
        found = {"looks": self.looks, "actions": self.actions, "pages_seconds": self.pages}
        return found | {"seconds": self.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--wrong", type=int, default=6)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), chosen.cells, chosen.wrong, one_by_one=True)
    text = to_json(found | {"provenance": provenance()})
    print(text.decode())
    if chosen.out is not None:
        write_atomic(chosen.out, text)


def measure(folder: Path, cells: int, wrong: int, one_by_one: bool) -> dict[str, Any]:
    """Reviews a sample in galleries and, if asked, another one cell by cell."""
    store = open_store(folder / "store")
    add_user(store, "Ada", PASSWORD, "reviewer")
    classifier = Classifier(threads=1)
    names = ("galleries", "one by one") if one_by_one else ("galleries",)
    truths = [fill(store, classifier, name, cells, wrong) for name in names]
    counting = Counting(classifier, cast(Any, SimpleNamespace()), "1" * 64)
    found: dict[str, Any] = {"cells": cells, "wrong": wrong, "look_s": LOOK, "action_s": ACTION}
    with served(Station(store, counting)) as address, browser() as page:
        log_in(page, address)
        found["galleries"] = review_galleries(page, address, truths[0]).describe()
        if one_by_one:
            found["one_by_one"] = review_one_by_one(page, address, truths[1]).describe()
    store.close()
    return found


def fill(store: Store, classifier: Classifier, name: str, cells: int, wrong: int) -> dict[str, str]:
    """A sample of drawn cells, of which so many have a wrong label; gives each cell's own."""
    random = np.random.default_rng(cells)
    names = [label for label, share in MIX.items() for _ in range(share)]
    own = [names[index % len(names)] for index in range(cells)]
    bad = set(random.choice(cells, wrong, replace=False).tolist())
    fields, images, order = [], [], []
    for start in range(0, cells, PER_FIELD):
        part = range(start, min(cells, start + PER_FIELD))
        labels = [own[index] for index in part]
        tries = (
            draw_field(seed, WIDTH, HEIGHT, RED, len(part), 0.2, True, labels)
            for seed in itertools.count(start, cells)
        )
        drawn = next(one for one in tries if len(one.labels) == len(part))  # all found room
        located = []
        for index, label, cell in zip(part, drawn.labels, drawn.select("white"), strict=True):
            given = label
            if index in bad:
                given = "monocyte" if label != "monocyte" else "lymphocyte"
            made = Prediction("", given, float(random.uniform(0.5, 1)), {given: 1.0})
            box = (cell.x0, cell.y0, cell.x1, cell.y1)
            located.append(NamedCell(LocatedCell("white", box, 0.9, at_border=False), made))
            order.append(label)
        path = f"{start:04d}.png"
        fields.append(NamedField(name, path, width=WIDTH, height=HEIGHT, cells=tuple(located)))
        images.append(NewField(path, to_png(drawn.image)))
    sample = add_sample(store, User(1, "Ada", "reviewer"), name, images)
    fill_sample(store, sample, fields, classifier.card.model_sha256, "1" * 64)
    with store.reading() as connection:
        query = "SELECT id, machine FROM cells WHERE sample_id = ? ORDER BY id"
        rows = connection.exec_driver_sql(query, (sample,)).all()
    return {str(row.id): label for row, label in zip(rows, order, strict=True)}


def review_galleries(page: Any, address: str, truth: dict[str, str]) -> Review:
    """Looks at each row of each gallery, moves what is wrong, and signs."""
    review = Review()
    open_sample(page, address, "galleries", review)
    wrong: list[tuple[str, str]] = []
    rows = page.evaluate(
        """() => [...document.querySelectorAll(".gallery")].map((gallery) => [
          gallery.dataset.group,
          [...gallery.querySelectorAll(".cell")].map((cell) => [cell.dataset.id, cell.offsetTop]),
        ])"""
    )
    for group, cells in rows:
        review.looks += len({top for _, top in cells})
        wrong += [(cell, truth[cell]) for cell, _ in cells if truth[cell] != group]
    for cell, label in wrong:
        give(page, review, cell, label)
    return sign(page, review)


def review_one_by_one(page: Any, address: str, truth: dict[str, str]) -> Review:
    """Looks at each cell by itself and gives it its label, and signs."""
    review = Review()
    open_sample(page, address, "one by one", review)
    for cell, label in truth.items():
        review.looks += 1
        give(page, review, cell, label)
    return sign(page, review)


def open_sample(page: Any, address: str, name: str, review: Review) -> None:
    page.goto(f"{address}/")
    page.get_by_role("link", name=name, exact=True).click()
    page.locator(".cell[title]").first.wait_for()
    review.actions += 1


def give(page: Any, review: Review, cell: str, label: str) -> None:
    """Clicks a cell and presses the key of a label, and waits until the cell has moved."""
    page.locator(f'.cell[data-id="{cell}"]').click()
    key = page.locator(f'button[data-label="{label}"][data-key]').get_attribute("data-key")
    with page.expect_response("**/label"):
        page.keyboard.press(key)
    page.locator(f'[data-group="{label}"] .cell.corrected[data-id="{cell}"]').wait_for()
    review.actions += 2


def sign(page: Any, review: Review) -> Review:
    page.locator('input[type="password"]').fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator('[data-state="signed"]').wait_for()
    review.actions += 2
    return review.end()


def log_in(page: Any, address: str) -> None:
    page.goto(f"{address}/login")
    page.locator("[name=name]").fill("Ada")
    page.locator("[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")


@contextmanager
def browser() -> Iterator[Any]:
    """A page of Chromium, 1280 pixels wide."""
    with launched() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        yield page


if __name__ == "__main__":
    main()
