"""Far out-of-distribution: images that are no cells at all, told from cells by every detector.

Grounds of BCCD's fields without a white cell or platelet, blank fields, fields out of focus, and
the photographs that come with scikit-image, each against the cells of split `test`. The detectors
are fitted on split `pool`, the same images for all. The bundle's own flag stands beside them.

    pip install 'hemascope[evaluate]' scikit-image
    python benchmarks/far_ood.py pbc/splits.csv bccd --out docs/evaluation/far_ood.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageFilter

from hemascope.arrays import FloatArray, ImageArray
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.classification import auroc
from hemascope.metrics.intervals import bootstrap, wilson
from hemascope.provenance import data_hash, provenance
from hemascope.records import Estimate, Proportion
from hemascope.serialization import to_json
from near_ood import scores_of, seen_by
from ood_detectors import detectors

FIELD_VIEW = 330  # pixels of a BCCD field as wide as what the model sees of PBC: 21.6 µm
FITTED_ON = 3000
TRIES = 20


@dataclass(frozen=True)
class FarSet:
    """One kind of images: each detector's area, and how many the bundle's own score flags."""

    name: str
    images: int
    auroc: dict[str, Estimate]
    flagged: Proportion


def photographs(size: int, random: np.random.Generator) -> Iterator[ImageArray]:
    """Random squares of scikit-image's photographs, twelve of each."""
    import skimage  # the fields of BCCD can be had without it

    folder = Path(skimage.__file__).parent / "data"
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        image = Image.open(path).convert("RGB")
        for _ in range(12):
            yield square(image, min(image.size) * random.uniform(0.4, 1), size, random)


def grounds(bccd: Path, size: int, random: np.random.Generator) -> Iterator[ImageArray]:
    """One square a field that no box of a white cell or platelet reaches into, where there is."""
    for path in sorted((bccd / "JPEGImages").glob("*.jpg")):
        boxes = cells_in(bccd / "Annotations" / f"{path.stem}.xml")
        image = Image.open(path).convert("RGB")
        for _ in range(TRIES):
            x = random.uniform(0, image.width - FIELD_VIEW)
            y = random.uniform(0, image.height - FIELD_VIEW)
            right, bottom = x + FIELD_VIEW, y + FIELD_VIEW
            if all(b[2] < x or b[0] > right or b[3] < y or b[1] > bottom for b in boxes):
                small = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, right, bottom))
                yield np.asarray(small)
                break


def cells_in(annotation: Path) -> list[list[float]]:
    """Boxes (left, top, right, bottom) of white cells and platelets."""
    found = []
    for box in ElementTree.parse(annotation).getroot().iter("object"):
        if box.findtext("name") != "RBC":
            corners = ("xmin", "ymin", "xmax", "ymax")
            found.append([float(box.findtext(f"bndbox/{corner}", "0")) for corner in corners])
    return found


def blanks(size: int, random: np.random.Generator) -> Iterator[ImageArray]:
    """Empty fields: one bright colour, with a camera's noise."""
    for _ in range(200):
        noise = random.normal(0, random.uniform(0, 12), (size, size, 3))
        yield np.clip(random.uniform(150, 255, 3) + noise, 0, 255).astype(np.uint8)


def out_of_focus(test: Manifest, classifier: Classifier) -> Iterator[ImageArray]:
    """Test cells, blurred until nothing but colour is left."""
    size = classifier.card.input.size
    for row in test.rows[::5]:
        image = Image.fromarray(classifier.card.input.load(test.root / row.path))
        yield np.asarray(image.filter(ImageFilter.GaussianBlur(size / 16)))


def square(image: Image.Image, side: float, size: int, random: np.random.Generator) -> ImageArray:
    x, y = random.uniform(0, image.width - side), random.uniform(0, image.height - side)
    small = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    return np.asarray(small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("bccd", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    manifest = read_manifest(chosen.manifest)
    classifier = Classifier(chosen.bundle)
    uncertainty = classifier.card.uncertainty
    if uncertainty is None:
        parser.error("the bundle is not calibrated; run 'hemascope calibrate' first")
    size, random = classifier.card.input.size, np.random.default_rng(0)
    pool, test = manifest.select("pool"), manifest.select("test")
    order = np.random.default_rng(0).permutation(len(pool.rows))[:FITTED_ON]
    fitted = detectors(
        scores_of(classifier, Manifest(pool.root, tuple(pool.rows[i] for i in order)))
    )
    cells = scores_of(classifier, test)
    images = {
        "grounds of BCCD": grounds(chosen.bccd, size, random),
        "blank": blanks(size, random),
        "out of focus": out_of_focus(test, classifier),
        "photographs": photographs(size, random),
    }
    results = []
    for name, several in images.items():
        stacked = np.stack(list(several))
        far = seen_by(classifier, stacked, [-1] * len(stacked))
        areas = {title: area(detector(cells), detector(far)) for title, detector in fitted.items()}
        odd = int((uncertainty.ood_detector(far.features, far.style_statistics) > 1).sum())
        flagged = wilson(odd, len(stacked))
        results.append(FarSet(name, len(stacked), areas, flagged))
        line = ", ".join(f"{title} {value.value:.4f}" for title, value in areas.items())
        print(f"{name}, n = {len(stacked)}: {line}; flagged {flagged.value:.3f}", flush=True)
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in test.rows))
    facts |= {"model_sha256": classifier.card.model_sha256}
    write_atomic(chosen.out, to_json({"far": results, "provenance": facts}))


def area(known: FloatArray, unknown: FloatArray) -> Estimate:
    """That a strange image scores higher than a cell, with its interval over both."""
    ranks = np.concatenate([known, unknown])[:, None]
    targets = np.concatenate([np.ones(len(known), int), np.zeros(len(unknown), int)])
    return bootstrap(lambda weights: auroc(ranks, targets, weights), len(ranks))[0]


if __name__ == "__main__":
    main()
