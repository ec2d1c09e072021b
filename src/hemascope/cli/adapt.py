"""`hemascope calibrate` and `adapt`: a model and labelled images → another model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.bundle.bundle import read_bundle, write_bundle
from hemascope.bundle.card import CARD_FILE
from hemascope.cli.options import (
    BundlePath,
    Force,
    ManifestPath,
    MaxPixels,
    Name,
    Root,
    Split,
    UmPerPixel,
    bundle_folder,
    fill_scales,
    limit_pixels,
    select_images,
    title_of,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing, share
from hemascope.records import RESEARCH_USE_ONLY


def calibrate(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    fallback: Path | None = None,
    split: Split = None,
    root: Root = None,
    name: Name = None,
    um_per_pixel: UmPerPixel = None,
    int8: Annotated[bool, Parameter(negative="")] = False,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Fit how far the predictions of a model can be trusted. Needs 'hemascope[evaluate]'.

    Writes a bundle with the same network, whose probabilities are calibrated and whose
    predictions carry a set of possible classes, an out-of-distribution score, and whether
    somebody should look at the image. All of it is fitted on labelled images that training
    never saw, at least 20 of each class.

    Parameters
    ----------
    out_folder
        Folder of the calibrated bundle.
    fallback
        Another bundle, or run, for the same classes and input, that becomes the fallback model: it
        predicts the images that are unlike those of the manifest. By default, the bundle keeps the
        fallback model that it has.
    int8
        Let the network compute in eight-bit integers, which is up to twice as fast; needs
        'hemascope[train]'. It is refused where more than 1 % of the cells would be
        predicted differently.
    """
    limit_pixels(max_pixels)
    from hemascope.post_training.calibrate import calibrate as fit

    refuse_existing(force, out_folder / CARD_FILE)
    source = read_bundle(bundle_folder(bundle))
    images = fill_scales(select_images(manifest, root, split, source.card.classes), um_per_pixel)
    title = name or title_of(manifest, split)
    with progress_bar("calibrating") as progress:
        other = None if fallback is None else read_bundle(bundle_folder(fallback))
        calibrated = fit(source, images, title, progress, other, int8)
    write_bundle(calibrated, out_folder)
    uncertainty = calibrated.card.uncertainty
    assert uncertainty is not None
    out.print(
        f"temperature {calibrated.card.temperature:.3f}, from {uncertainty.images} images of "
        f"{len(images.rows)}; bundle written to {escape(str(out_folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0


def adapt(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    new_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    split: Split = None,
    root: Root = None,
    name: Name = None,
    um_per_pixel: UmPerPixel = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Fit a model to another laboratory with ten labelled cells per class.

    Writes a bundle whose last layers are fitted to these cells, and which is calibrated on the same
    cells, each held out. Where there is a fallback model, its last layers are fitted. A class
    without cells keeps what the model knew of it. The bundle is for that laboratory's images only;
    classify them with the same --um-per-pixel. Give an adapted bundle as --bundle to add cells.

    Parameters
    ----------
    out_folder
        Folder of the adapted bundle.
    new_class
        A class that the model does not know, of which there are cells; repeat it for several.
    """
    limit_pixels(max_pixels)
    from hemascope.post_training.adapt import adapt as fit
    from hemascope.post_training.adapt import grow_classes

    refuse_existing(force, out_folder / CARD_FILE)
    source = read_bundle(bundle_folder(bundle))
    classes = grow_classes(source.card.classes, new_class)
    images = fill_scales(select_images(manifest, root, split, classes), um_per_pixel)
    with progress_bar("adapting") as progress:
        adapted = fit(source, images, name or title_of(manifest, split), progress, new_class)
    write_bundle(adapted, out_folder)
    held_out = adapted.card.metrics[0].result
    out.print(
        f"{share(held_out.value)} ({share(held_out.low)} – {share(held_out.high)}) of "
        f"{held_out.n} cells right when held out; bundle written to {escape(str(out_folder))}. "
        f"{RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0
