"""How often the flags of quality are raised: on good images, and on bad ones of every kind.

The cells of split `test` as they are; blurred; cut off by the edge of the image, the view moved
away from the cell in one of four directions; and images without a white cell: the four corners of
a PBC image put together, and grounds of BCCD's fields. The limits are the bundle's, fitted on
images of split `pool`; nothing is chosen here.

    pip install 'hemascope[evaluate]'
    python benchmarks/quality.py pbc/splits.csv bccd --out docs/evaluation/quality.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from far_ood import grounds
from hemascope.arrays import ImageArray
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.preprocess import InputSpec, decode
from hemascope.provenance import data_hash, provenance
from hemascope.records import Proportion
from hemascope.serialization import to_json
from hemascope.uncertainty.image_quality import BLURRED, CUT_OFF, NO_CELL
from hemascope.uncertainty.model import assess
from hemascope.uncertainty.temperature import softmax

Reasons = list[tuple[str, ...]]

FLAGS = (BLURRED, CUT_OFF, NO_CELL)
BLURS = (1, 2, 3, 4)  # pixels of an image of 360, a Gaussian's standard deviation
MOVES = {"half outside": 0.5, "mostly outside": 0.6}  # of the view's side
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))
BATCH = 32


@dataclass(frozen=True)
class Flagged:
    """How often each flag is raised on one kind of images; `quality`: at least one of the three.

    `review` is for any reason, those that the network gives among them.
    """

    images: str
    cells: str
    n: int
    flags: dict[str, Proportion]
    quality: Proportion
    review: Proportion


def reasons_of(classifier: Classifier, images: Sequence[ImageArray]) -> Reasons:
    """Why each of the preprocessed images (S,S,3) wants review."""
    uncertainty = classifier.card.uncertainty
    found: Reasons = []
    if uncertainty is None:
        raise ValueError("the bundle is not calibrated; run 'hemascope calibrate' first")
    for start in range(0, len(images), BATCH):
        batch = np.stack(images[start : start + BATCH])
        scores = classifier.outputs(batch)
        probabilities = softmax(scores.logits, classifier.card.temperature)
        found += assess(
            uncertainty, probabilities, scores.features, scores.style_statistics, batch
        ).reasons
    return found


def flagged(images: str, cells: str, reasons: Reasons) -> Flagged:
    n = len(reasons)
    return Flagged(
        images,
        cells,
        n,
        {flag: wilson(sum(flag in why for why in reasons), n) for flag in FLAGS},
        wilson(sum(not set(FLAGS).isdisjoint(why) for why in reasons), n),
        wilson(sum(bool(why) for why in reasons), n),
    )


def blurred(image: Image.Image, spec: InputSpec, radius: float) -> ImageArray:
    return spec.apply(image.filter(ImageFilter.GaussianBlur(radius)))


def moved(
    image: Image.Image, spec: InputSpec, share: float, random: np.random.Generator
) -> ImageArray:
    """The view moved by a share of its side: so far lies the cell's middle from the image's."""
    across, down = DIRECTIONS[random.integers(len(DIRECTIONS))]
    step = share * spec.side(image)
    return spec.apply(
        image, centre=(image.width / 2 + step * across, image.height / 2 + step * down)
    )


def corners(image: Image.Image, spec: InputSpec) -> ImageArray:
    """What lies in the four corners, at the model's scale: a cross in the middle is left out."""
    side = round(spec.side(image))
    first, pixels = side // 2, np.asarray(image)
    for axis in (0, 1):
        length = pixels.shape[axis]
        pixels = pixels.take(np.r_[:first, length - side + first : length], axis)
    return InputSpec(spec.size).apply(Image.fromarray(pixels))


def kinds(spec: InputSpec) -> dict[str, Callable[[Image.Image], ImageArray]]:
    """What is made of a PBC image, by the name of what comes of it."""
    random = np.random.default_rng(0)
    found: dict[str, Callable[[Image.Image], ImageArray]] = {"as they are": spec.apply}
    for radius in BLURS:
        found[f"blurred by {radius} px"] = partial(blurred, spec=spec, radius=radius)
    for name, share in MOVES.items():
        found[name] = partial(moved, spec=spec, share=share, random=random)
    return found | {"corners of PBC": partial(corners, spec=spec)}


def measure_appearance(classifier: Classifier, manifest: Manifest) -> Iterator[Flagged]:
    """Every kind of image made of these images: of all, of platelets, and of the others."""
    platelet = [row.label == "platelet" for row in manifest.rows]
    for name, made in kinds(classifier.card.input).items():
        images = [made(decode(manifest.root / row.path)) for row in manifest.rows]
        reasons = reasons_of(classifier, images)
        yield flagged(name, "all", reasons)
        yield flagged(name, "platelets", list(compress(reasons, platelet)))
        yield flagged(name, "others", [r for r, p in zip(reasons, platelet, strict=True) if not p])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("bccd", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    classifier = Classifier()
    test = read_manifest(given.manifest).select("test")
    found = list(measure_appearance(classifier, test))
    fields = list(grounds(given.bccd, classifier.card.input.size, np.random.default_rng(0)))
    found.append(flagged("grounds of BCCD", "all", reasons_of(classifier, fields)))
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in test.rows))
    facts |= {"model_sha256": classifier.card.model_sha256}
    write_atomic(given.out, to_json({"flagged": found, "provenance": facts}))
    for kind in found:
        shares = ", ".join(f"{flag} {share.value:.3f}" for flag, share in kind.flags.items())
        print(
            f"{kind.images}, {kind.cells}, n = {kind.n}: {shares}, any of them "
            f"{kind.quality.value:.3f}; to review {kind.review.value:.3f}"
        )


if __name__ == "__main__":
    main()
