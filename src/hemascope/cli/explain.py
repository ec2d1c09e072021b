"""`hemascope explain`: where an image supports the class that is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.batch.inputs import Inputs, Item, find_inputs, path_of
from hemascope.batch.local import make_viewer
from hemascope.cli.options import (
    BundlePath,
    Classes,
    Force,
    ImageList,
    MaxPixels,
    UmPerPixel,
    limit_pixels,
    open_bundle,
    scale_finder,
)
from hemascope.cli.terminal import escape, out, print_last_line, progress_bar, refuse_existing
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.preprocess import View
from hemascope.reports.pages import GALLERY, explanation_page


def explain(
    images: ImageList,
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("explanation.html"),
    bundle: BundlePath = None,
    um_per_pixel: UmPerPixel = None,
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
    """The predictions of the images, at the scale that is given or measured in each.

    Raises ValueError where none can be read.
    """
    finder = scale_finder() if um_per_pixel == "auto" else None
    scale = None if um_per_pixel == "auto" else um_per_pixel
    viewer = make_viewer(finder.view if finder else partial(View, um_per_pixel=scale))
    predictions = classifier.predict(list(map(viewer, items)))
    if finder is not None:
        out.print(escape(str(finder)), soft_wrap=True, highlight=False)
    if all(prediction.label is None for prediction in predictions):
        raise ValueError(f"{path_of(items[0])}: {predictions[0].status}; no image could be read")
    return predictions
