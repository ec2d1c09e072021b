"""How soon the galleries of a large sample stand, and how smoothly they scroll, in Chromium.

    python benchmarks/gallery_speed.py --out docs/evaluation/gallery_speed.json

Samples of 500 and of 5,000 cells are filled with boxes on fifty drawn fields; no network is asked.
The small images are prepared, as those of a sample are that was just imported. The time to the page
is that from asking for it until its elements stand, and until the images that are seen are there;
the median of some visits, and that of the first one, of which the browser has cached nothing. Then
the page is scrolled from its top to its end in steps of 40 pixels, one a frame, as it is met, and
once more in steps of 120 pixels; a frame should take 17 ms. Needs Playwright and Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
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
from hemascope.serve.store.database import open_store
from hemascope.serve.store.people import User, add_user
from hemascope.serve.store.samples import NewField, add_sample, fill_sample, list_images
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import LocatedCell
from review_speed import MIX, PASSWORD, browser, log_in
from served import served

SIZES, FIELDS, WIDTH, HEIGHT, BOX, VISITS = (500, 5000), 50, 960, 720, 90, 5
WHEEL, FAST = 40, 120  # pixels a frame: 2,400 a second, faster than a wheel is turned; and 7,200
SEEN = """() => {
  const seen = [...document.querySelectorAll(".cell")].filter((cell) => {
    const place = cell.getBoundingClientRect();
    return place.top < innerHeight && place.bottom > 0;
  });
  const images = seen.map((cell) => cell.querySelector("img"));
  return images.length > 0 && images.every((image) => image?.complete && image.naturalWidth);
}"""
SCROLL = """(step_pixels) => new Promise((done) => {
  const frames = [];
  let before = performance.now();
  const step = (now) => {
    frames.push(now - before);
    before = now;
    const end = document.documentElement.scrollHeight - innerHeight;
    if (scrollY >= end - 1) { done(frames.slice(1)); return; }
    scrollBy(0, step_pixels);
    requestAnimationFrame(step);
  };
  scrollTo(0, 0);
  requestAnimationFrame(step);
})"""


def fill(station: Station, name: str, cells: int, images: list[bytes]) -> None:
    """A sample of so many white cells at places drawn by chance, as an import leaves it."""
    random = np.random.default_rng(cells)
    labels = list(MIX)
    shares = np.array(list(MIX.values())) / sum(MIX.values())
    fields = []
    for number in range(FIELDS):
        named = []
        for x, y in random.uniform(0, (WIDTH - BOX, HEIGHT - BOX), (cells // FIELDS, 2)):
            label = str(random.choice(labels, p=shares))
            made = Prediction("", label, float(random.uniform(0.5, 1)), {label: 1.0})
            box = (float(x), float(y), float(x) + BOX, float(y) + BOX)
            named.append(NamedCell(LocatedCell("white", box, 0.9, at_border=False), made))
        path = f"{number:03d}.png"
        fields.append(NamedField(name, path, width=WIDTH, height=HEIGHT, cells=tuple(named)))
    given = [NewField(f"{n:03d}.png", image) for n, image in enumerate(images)]
    store, model = station.store, station.counting.classifier.card.model_sha256
    sample = add_sample(store, User(1, "Ada", "reviewer"), name, given)
    fill_sample(store, sample, fields, model, "1" * 64)
    with store.reading() as connection:
        stored = list_images(connection, sample)
    for field, (_, sha256) in zip(fields, stored, strict=True):
        station.small.prepare(sha256, field).result()


def visit(page: Any, address: str) -> dict[str, float]:
    """Milliseconds until the page's elements stand, and until the images that are seen do."""
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_function(SEEN)
    of_page = page.evaluate(
        """() => [performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
                  performance.now()]"""
    )
    return dict(zip(("elements_ms", "images_ms"), of_page, strict=True))


def describe(frames: list[float]) -> dict[str, float]:
    """How long the frames took, in milliseconds."""
    times = np.array(frames)
    return {
        "frames": len(times),
        "median_ms": float(np.median(times)),
        "p99_ms": float(np.percentile(times, 99)),
        "longer_than_50_ms": float((times > 50).mean()),
    }


def measure(page: Any, address: str, name: str) -> dict[str, Any]:
    """The visits and the scrolling of one sample."""
    page.goto(f"{address}/")
    place = page.get_by_role("link", name=name, exact=True).get_attribute("href")
    visits = [visit(page, f"{address}{place}") for _ in range(VISITS)]
    return {
        "first": visits[0],
        "median": {key: median(each[key] for each in visits) for key in visits[0]},
        "scrolled": describe(page.evaluate(SCROLL, WHEEL)),
        "scrolled_fast_again": describe(page.evaluate(SCROLL, FAST)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    images = [to_png(draw_field(n, WIDTH, HEIGHT, plain=True).image) for n in range(FIELDS)]
    classifier = Classifier(threads=1)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store")
        add_user(store, "Ada", PASSWORD, "reviewer")
        counting = Counting(classifier, cast(Any, SimpleNamespace()), "1" * 64)
        station = Station(store, counting)
        for size in SIZES:
            fill(station, f"of {size}", size, images)
        with served(station) as address, browser() as page:
            log_in(page, address)
            for size in SIZES:
                found[str(size)] = measure(page, address, f"of {size}")
        store.close()
    text = to_json({"cells": found, "provenance": provenance()})
    print(text.decode())
    if chosen.out is not None:
        write_atomic(chosen.out, text)


if __name__ == "__main__":
    main()
