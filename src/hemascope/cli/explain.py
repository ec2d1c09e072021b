"""`hemascope explain`: where an image supports the class that is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.batch.inputs import Inputs, Item, find_inputs, path_of, view_of
from hemascope.cli.options import (
    BundlePath,
    Classes,
    Force,
    ImageList,
    MaxPixels,
    UmPerPixel,
    limit_pixels,
    open_bundle,
    settle_scale,
)
from hemascope.cli.terminal import print_last_line, progress_bar, refuse_existing
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.reports.pages import GALLERY, explanation_page


def explain(
    images: ImageList,
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("explanation.html"),
    bundle: BundlePath = None,
    um_per_pixel: UmPerPixel = "auto",
    classes: Classes = None,
    search_mask: Annotated[bool, Parameter(negative="")] = False,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Show where an image supports the predicted class, and the runner-up.

    Writes one page. Each map is the class activation map, averaged over the eight symmetries.

    Parameters
    ----------
    images
        Files, folders (with all below them) or patterns like 'slides/*.png'; at most 400 images.
    out_file
        The page.
    search_mask
        Search for maps that do well by the deletion and insertion curves: variations of each map
        are tried for those whose strongest places bring the class when they are shown alone, and
        undo it when they are removed. This takes seconds per image. The curves are then no
        measure of the map, because it was optimised on them.
    """
    limit_pixels(max_pixels)
    refuse_existing(force, out_file)
    inputs = _find(images)
    classifier = Classifier(open_bundle(bundle, classes))
    predictions = _predict(classifier, inputs.items, um_per_pixel)
    with progress_bar("explaining") as progress:
        page = explanation_page(predictions, classifier, progress, search_mask)
    write_atomic(out_file, page)
    unreadable = sum(prediction.label is None for prediction in predictions)
    done = f"{len(predictions) - unreadable} images explained, {unreadable} could not be read"
    print_last_line(done, inputs.passed_over, str(out_file))
    return 0


def _find(images: list[str]) -> Inputs:
    """The images that are given. Raises ValueError for more than fit on a page."""
    inputs = find_inputs(images)
    if len(inputs.items) > GALLERY:
        raise ValueError(
            f"{len(inputs.items)} images are too many for one page; give {GALLERY} at most"
        )
    return inputs


def _predict(
    classifier: Classifier, items: Sequence[Item], um_per_pixel: UmPerPixel
) -> list[Prediction]:
    """The predictions of the images, at the scale that is given or that their cells tell.

    Raises ValueError where none can be read.
    """
    scale = settle_scale(um_per_pixel, items, classifier.bundle).um_per_pixel
    predictions = classifier.predict([view_of(item, scale) for item in items])
    if all(prediction.label is None for prediction in predictions):
        raise ValueError(f"{path_of(items[0])}: {predictions[0].status}; no image could be read")
    return predictions
