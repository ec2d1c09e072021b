"""The options that several commands share: each with its help, once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter

from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.bundle.card import CARD_FILE
from hemascope.bundle.restrict import restrict_classes
from hemascope.classes import ClassSet
from hemascope.cli.terminal import escape, out, print_warning, progress_bar
from hemascope.data.manifest import Manifest, match_spelling
from hemascope.data.open_manifest import open_manifest
from hemascope.decoding.limits import set_max_pixels
from hemascope.errors import ManifestError, UnknownClassError
from hemascope.preprocess import View
from hemascope.training.recipe import Recipe, StartFrom, read_recipe

if TYPE_CHECKING:
    from hemascope.smear.measure_scales import FoundScale

CONTRADICTED = 1.25  # ratio of two scales of which one is wrong

ManifestPath: TypeAlias = Annotated[
    Path, Parameter(help="Manifest CSV, or a folder with one folder per class.")
]
ImageList: TypeAlias = Annotated[list[str], Parameter(allow_leading_hyphen=True, negative="")]
BundleFolder: TypeAlias = Annotated[
    Path | None,
    Parameter(
        help="Folder of a model, or of a run; by default the model that comes with the package."
    ),
]
BundlePath: TypeAlias = Annotated[BundleFolder, Parameter(name="--bundle")]
Force: TypeAlias = Annotated[
    bool, Parameter(name="--force", negative="", help="Replace files that exist.")
]
Tta: TypeAlias = Annotated[
    bool,
    Parameter(
        name="--tta",
        negative="",
        help="Predict each image in the eight symmetries of the square and take the mean; this "
        "takes eight times as long.",
    ),
]
Split: TypeAlias = Annotated[
    str | None, Parameter(help="Use the rows of this split only, such as test or pool.")
]
SkipOutliers: TypeAlias = Annotated[
    bool,
    Parameter(
        name="--skip-outliers",
        negative="",
        help="Leave out images whose label is no class of the model, such as the outliers of "
        "'train --classes', and say how many; by default such a label is an error.",
    ),
]
Root: TypeAlias = Annotated[
    Path | None,
    Parameter(help="What a manifest's paths are relative to; by default its own folder."),
]
Name: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="What these images are called in the results and on the card; by default the "
        "manifest's name and the split."
    ),
]
UmPerPixel: TypeAlias = Annotated[
    float | Literal["auto", "training"],
    Parameter(
        help="How many micrometres a pixel of these images is wide, where their manifest does not "
        "say. auto measures a sample of them: the red cells around the cells, or else the cells "
        "themselves. training takes them to have the scale of the training images."
    ),
]
Classes: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="The classes that occur, separated by commas, where they are known: only these are "
        "predicted, and whatever else there is should be unlike the known cells."
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    Parameter(
        help="Processors to use; by default as many as this process is allowed, by its affinity "
        "and its container."
    ),
]
LocatorPath: TypeAlias = Annotated[
    Path | None, Parameter(name="--locator", help="Folder of another network that finds cells.")
]
Resume: TypeAlias = Annotated[
    bool,
    Parameter(
        name="--resume",
        negative="",
        help="Continue what was begun and stopped, in whatever way; no row is lost or doubled.",
    ),
]
ResumeRun: TypeAlias = Annotated[
    bool, Parameter(name="--resume", negative="", help="Continue the run in the folder.")
]
StartWeights: TypeAlias = Annotated[
    StartFrom | None,
    Parameter(
        name="--start-from",
        help="Another run, of the same architecture, whose best weights this run begins with; a "
        "last layer for other classes is initialised anew. Or imagenet, for efficientnet_lite0 "
        "and efficientnet_mini; needs 'hemascope[imagenet]'.",
    ),
]
MaxPixels: TypeAlias = Annotated[
    int | None,
    Parameter(
        name="--max-pixels",
        help="Read images of up to this many pixels, by default 100 million, or "
        "HEMASCOPE_MAX_PIXELS; decoding may take five bytes of memory for each.",
    ),
]
Cache: TypeAlias = Annotated[
    Path | None,
    Parameter(
        help="Folder for decoded images; by default HEMASCOPE_CACHE, or the user's cache folder."
    ),
]
DatabaseAddress: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--database",
        env_var="HEMASCOPE_DATABASE",
        help="Address of a PostgreSQL database, postgresql://user@host/name; by default a file in "
        "the folder of the store.",
    ),
]
RecipeFile: TypeAlias = Annotated[
    Path | None,
    Parameter(name="--recipe", help="A recipe.json to train with, instead of single settings."),
]
RecipeSettings: TypeAlias = Annotated[Recipe | None, Parameter(name="*")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model sees the images, and how."""

    bundle: BundleFolder = None
    tta: Tta = False
    um_per_pixel: UmPerPixel = "auto"
    classes: Classes = None


@dataclass(frozen=True)
class Machines:
    """Where a command works, and on how much of it."""

    cluster: Annotated[bool, Parameter(negative="")] = False
    """Work on a Ray cluster, by RAY_ADDRESS or else one started here; files and folders must be on
    a disk that all its machines share. Needs 'hemascope[cluster]'."""
    workers: int | None = None
    """With --cluster, the number of processes; by default one for each of its processors."""
    threads: Threads = None

    def __post_init__(self) -> None:
        if self.workers is not None and not self.cluster:
            raise ValueError("--workers is a number of processes for --cluster")
        if self.threads is not None and self.cluster:
            raise ValueError("--threads is for this machine alone; --workers is for a --cluster")


MachineOptions: TypeAlias = Annotated[Machines | None, Parameter(name="*")]


def limit_pixels(number: int | None) -> None:
    """Sets how large images may be, here and in the processes that are started from here."""
    if number is not None:
        set_max_pixels(number)


def bundle_folder(path: Path | None) -> Path | None:
    """A bundle's folder, or the one inside a run's folder."""
    if path is not None and not (path / CARD_FILE).exists() and (path / "bundle").is_dir():
        return path / "bundle"
    return path


def open_bundle(path: Path | None, classes: str | None) -> Bundle:
    """The bundle that a user names, which chooses among the named classes only, if there are any.

    Raises BundleError.
    """
    bundle = read_bundle(bundle_folder(path))
    if classes is None:
        return bundle
    return restrict_classes(bundle, [name.strip() for name in classes.split(",")])


def choose_recipe(file: Path | None, settings: Recipe | None) -> Recipe:
    """The recipe in the file, or of the settings. Raises ValueError where both are given."""
    if file is not None and settings is not None:
        raise ValueError("give either --recipe or single settings, not both")
    return read_recipe(file) if file is not None else settings or Recipe()


def open_images(path: Path, root: Path | None = None, classes: ClassSet | None = None) -> Manifest:
    """The labelled images that a user names; how a folder was read is printed."""
    manifest = open_manifest(path, root, classes)
    for note in manifest.notes:
        out.print(escape(f"{path}: {note}"), soft_wrap=True, highlight=False)
    return manifest


def select_images(
    path: Path,
    root: Path | None,
    split: str | None,
    classes: ClassSet | None = None,
    skip_outliers: bool = False,
) -> Manifest:
    """The labelled images that a user names, or those of a split, in the model's spelling.

    Raises UnknownClassError for a label that is no class, unless such images are to be left out.
    """
    if classes is not None and skip_outliers:
        manifest = _leave_outliers_out(open_images(path, root), classes)
    else:
        try:
            manifest = open_images(path, root, classes)
        except UnknownClassError as error:
            raise UnknownClassError(
                f"{error}; --skip-outliers leaves images of other labels out"
            ) from None
    return manifest if split is None else manifest.select(split)


def _leave_outliers_out(manifest: Manifest, classes: ClassSet) -> Manifest:
    """The images of these classes, in their spelling; the others are counted and said."""
    known, outliers = manifest.separate_outliers(classes)
    print_left_out(outliers)
    if not known.rows:
        raise ManifestError(f"{manifest.root}: no image is of a class of the model")
    rows = (replace(row, label=match_spelling(row.label, row.path, classes)) for row in known.rows)
    return replace(known, rows=tuple(rows))


def print_left_out(outliers: Manifest) -> None:
    """Says which cells are left out, since they are of none of the model's classes."""
    if outliers.rows:
        counts = Counter(row.label for row in outliers.rows)
        listed = ", ".join(f"{label} {n}" for label, n in counts.most_common())
        out.print(
            f"{len(outliers.rows)} cells are of none of the model's classes and are left out: "
            f"{escape(listed)}",
            soft_wrap=True,
        )


def fill_scales(manifest: Manifest, um_per_pixel: UmPerPixel, bundle: Bundle) -> Manifest:
    """The manifest with a scale for the rows that have none; see `settle_scale`."""
    return manifest.fill_scale(settle_scale(um_per_pixel, manifest.views(), bundle).um_per_pixel)


def settle_scale(
    um_per_pixel: UmPerPixel, images: Sequence[str | View], bundle: Bundle
) -> FoundScale:
    """The scale of the images that come without one: the user's; or that of the cells which the
    bundle was adapted to; or what a sample of them tells.

    What was found is printed, and a warning where red cells contradict a scale that is given.
    """
    from hemascope.smear.measure_scales import FoundScale, find_scale

    if um_per_pixel == "training" or not images:
        return FoundScale(None if isinstance(um_per_pixel, str) else um_per_pixel, "")
    own = [view.um_per_pixel for view in images if isinstance(view, View) and view.um_per_pixel]
    before = bundle.card.adaptation
    given = adapted = before.sets[-1].um_per_pixel if before else None
    if um_per_pixel != "auto":
        given, adapted = um_per_pixel, None
    with progress_bar("measuring the scale") as progress:
        if given is None and len(own) < len(images):
            without = [view for view in images if isinstance(view, str) or not view.um_per_pixel]
            found = find_scale(without, bundle, progress=progress)
        else:
            by_red = find_scale(images, bundle, progress=progress, kinds=["red"])
            _warn_of_scale(given or median(own), by_red)
            note = ""
            if adapted is not None:
                note = f"{adapted:g} µm a pixel, as in the images that the bundle was adapted to"
            found = replace(by_red, um_per_pixel=given, note=note)
    if found.note:
        out.print(escape(found.note), soft_wrap=True, highlight=False)
    return found


def _warn_of_scale(given: float, found: FoundScale) -> None:
    """Warns where red cells show another scale than the one that is given."""
    told = found.measured
    if told is not None and not 1 / CONTRADICTED < told.value / given < CONTRADICTED:
        print_warning(
            f"red cells tell that a pixel is {told.value:.3g} µm wide ({told.low:.3g} – "
            f"{told.high:.3g}), and not {given:g}: check the scale that is given"
        )


def title_of(path: Path, split: str | None) -> str:
    """What a set of images is called: its folder, and the split."""
    full = Path(os.path.abspath(path))  # not where a link leads, which may be a mere hash
    return " ".join(filter(None, [full.name if full.is_dir() else full.parent.name, split]))


@dataclass(frozen=True)
class ImageOptions:
    """Which of the labelled images are used, at which scale, and what they are called."""

    split: Split = None
    skip_outliers: SkipOutliers = False
    root: Root = None
    name: Name = None
    um_per_pixel: UmPerPixel = "auto"

    def select(self, path: Path, bundle: Bundle, classes: ClassSet | None = None) -> Manifest:
        """The images that a user names, in the spelling of the classes and with a scale.

        The classes are the model's, unless others are given.
        """
        classes = classes or bundle.card.classes
        images = select_images(path, self.root, self.split, classes, self.skip_outliers)
        return fill_scales(images, self.um_per_pixel, bundle)

    def title(self, path: Path) -> str:
        """What the images are called in the results."""
        return self.name or title_of(path, self.split)


ChosenImages: TypeAlias = Annotated[ImageOptions | None, Parameter(name="*")]
