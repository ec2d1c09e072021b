"""`hemascope calibrate` and `adapt`: a model and labelled images → another model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.bundle.card import CARD_FILE, Card
from hemascope.cli.options import (
    BundlePath,
    ChosenImages,
    Force,
    ImageOptions,
    ManifestPath,
    MaxPixels,
    bundle_folder,
    limit_pixels,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing, share
from hemascope.records import RESEARCH_USE_ONLY


@dataclass(frozen=True)
class NetworkOptions:
    """What else becomes of a bundle's networks when it is calibrated."""

    fallback: Path | None = None
    """Another bundle, or run, for the same classes and input, that becomes the fallback model: it
    predicts the images that are unlike those of the manifest. By default, the bundle keeps the
    fallback model that it has."""
    int8: Annotated[bool, Parameter(negative="")] = False
    """Let the network compute in eight-bit integers, which is up to twice as fast; needs
    'hemascope[train]'. It is refused where more than 1 % of the cells would be
    predicted differently."""

    @property
    def fallback_bundle(self) -> Bundle | None:
        """The fallback model, if one is named."""
        return None if self.fallback is None else read_bundle(bundle_folder(self.fallback))


def calibrate(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    networks: Annotated[NetworkOptions | None, Parameter(name="*")] = None,
    chosen: ChosenImages = None,
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
    """
    limit_pixels(max_pixels)
    from hemascope.post_training.calibrate import calibrate as fit

    refuse_existing(force, out_folder / CARD_FILE)
    source = read_bundle(bundle_folder(bundle))
    chosen, networks = chosen or ImageOptions(), networks or NetworkOptions()
    images = chosen.select(manifest, source)
    with progress_bar("calibrating") as progress:
        other = networks.fallback_bundle
        calibrated = fit(source, images, chosen.title(manifest), progress, other, networks.int8)
    write_bundle(calibrated, out_folder)
    _print_calibrated(calibrated.card, len(images.rows), out_folder)
    return 0


def _print_calibrated(card: Card, images: int, folder: Path) -> None:
    assert card.uncertainty is not None
    assert card.confusion is not None
    named, review = card.confusion.counts, sum(card.confusion.unidentified)
    sure = sum(map(sum, named))
    right = share(sum(row[k] for k, row in enumerate(named)) / sure) if sure else "none"
    out.print(
        f"temperature {card.temperature:.3f}, from {card.uncertainty.images} images of {images}; "
        f"{share(review / (sure + review))} of them are to be reviewed, {right} of the others are "
        f"right; bundle written to {escape(str(folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )


def adapt(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    new_class: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    chosen: ChosenImages = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Fit a model to another laboratory with ten labelled cells per class.

    Writes a bundle whose last layers are fitted to these cells, and which is calibrated on the same
    cells, each held out. Where there is a fallback model, its last layers are fitted. A class
    without cells keeps what the model knew of it. The bundle is for that laboratory's images only,
    and knows their scale. Give an adapted bundle as --bundle to add cells.

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
    chosen = chosen or ImageOptions()
    images = chosen.select(manifest, source, grow_classes(source.card.classes, new_class))
    with progress_bar("adapting") as progress:
        adapted = fit(source, images, chosen.title(manifest), progress, new_class)
    write_bundle(adapted, out_folder)
    _print_adapted(adapted.card, out_folder)
    return 0


def _print_adapted(card: Card, folder: Path) -> None:
    held_out = card.metrics[0].result
    out.print(
        f"{share(held_out.value)} ({share(held_out.low)} – {share(held_out.high)}) of "
        f"{held_out.n} cells right when held out; bundle written to {escape(str(folder))}. "
        f"{RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
