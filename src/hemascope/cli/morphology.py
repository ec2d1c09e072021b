"""`hemascope fit-morphology`: a model that also says what a cell looks like, and its subtype."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.bundle.bundle import read_bundle, write_bundle
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
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing
from hemascope.data.attributes import read_attributes
from hemascope.records import RESEARCH_USE_ONLY


def fit_morphology(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    attributes: Path | None = None,
    bundle: BundlePath = None,
    chosen: ChosenImages = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Let a model tell attributes and subtypes besides the class. Needs 'hemascope[evaluate]'.

    Writes a bundle with the same network and the same classes. Linear layers on the network's
    features tell the subtypes that the manifest gives, and the attributes of a table; each is
    calibrated on cells that it was not fitted on. Rows of split `test` are left out.

    Parameters
    ----------
    out_folder
        Folder of the new bundle.
    attributes
        CSV file of what is seen of each cell, such as the shape of its nucleus: img_name (a file's
        name) and columns as WBCAtt's.
    """
    limit_pixels(max_pixels)
    from hemascope.post_training.fit_morphology import fit_morphology as fit

    refuse_existing(force, out_folder / CARD_FILE)
    source = read_bundle(bundle_folder(bundle))
    table = None if attributes is None else read_attributes(attributes)
    chosen = chosen or ImageOptions()
    images = chosen.select(manifest, source)
    with progress_bar("measuring") as progress:
        fitted = fit(source, images, chosen.title(manifest), table, progress)
    write_bundle(fitted, out_folder)
    _print_fitted(fitted.card, out_folder)
    return 0


def _print_fitted(card: Card, folder: Path) -> None:
    model = card.morphology
    assert model is not None
    told = [layer.name for layer in model.attributes]
    told += [f"subtypes of {layer.name}" for layer in model.subtypes]
    out.print(
        f"{model.images} cells; the bundle tells {escape(', '.join(told))}; written to "
        f"{escape(str(folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
