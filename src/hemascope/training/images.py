"""TrainingData: a manifest's rows as cached frames, split and ready to be batched."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from hemascope.arrays import FloatArray, ImageArray, IntArray, ProgressCallback
from hemascope.classes import ClassSet
from hemascope.data.attributes import AttributeTable
from hemascope.data.auxiliary import AuxiliaryTargets, collect_targets
from hemascope.data.cache import open_cache
from hemascope.data.dataset import Batch, CellDataset, test_loader, train_loader
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.data.splits import Rows, add_hashes, check_splits, validation_split
from hemascope.errors import ManifestError
from hemascope.preprocess import InputSpec
from hemascope.provenance import data_hash
from hemascope.training.recipe import Recipe

NO_CLASS = -1  # the target of an image that shows none of the classes
MARGIN = 1.42  # √2: what the corners of a turned square reach for


@dataclass(frozen=True)
class TrainingData:
    """Frames to train on (N,F,F,3), images to validate on (M,S,S,3), their class indices.

    A frame shows more than the model's input, where the image has more: `inner` is the input's
    part of its side. `digest` identifies images and labels. `laboratories` (N,) says where each
    frame is from; empty where all are from one. A target of NO_CLASS is of an image that shows
    none of the classes, of which the network learns to be unsure. `auxiliary` is what else is
    learnt of the frames.
    """

    classes: ClassSet
    frames: ImageArray
    targets: tuple[int, ...]
    inner: float
    val_images: ImageArray | None
    val_targets: tuple[int, ...]
    digest: str
    laboratories: tuple[str, ...] = ()
    auxiliary: AuxiliaryTargets | None = None

    def loaders(
        self, recipe: Recipe, device: torch.device
    ) -> tuple[DataLoader[Batch], DataLoader[Batch] | None]:
        """Batches to train on, and to validate on if anything is held out.

        A GPU keeps all images in its memory, where they fit into a quarter of what is free.
        """
        images = self.frames.nbytes + (0 if self.val_images is None else self.val_images.nbytes)
        place = place_of(images, device)
        resident = place.type == "cuda"
        targets: IntArray = np.array(self.targets, np.int64)
        if recipe.auxiliary_weight > 0 and self.auxiliary is not None:
            targets = np.column_stack([targets, self.auxiliary.indices])
        frames = CellDataset(self.frames, targets, place)
        train = train_loader(frames, recipe.batch_size, recipe.seed, self.weights(recipe))
        if self.val_images is None:
            return train, None
        val = CellDataset(self.val_images, self.val_targets, place)
        return train, test_loader(val, recipe.batch_size * (8 if resident else 1))

    def weights(self, recipe: Recipe) -> FloatArray | None:
        """How often each frame is drawn in an epoch, (N,); None for once each.

        A group of n frames is drawn in proportion to n^(1-balance).
        """
        if not (recipe.laboratory_balance or recipe.class_balance or recipe.images_per_epoch):
            return None
        laboratories = self.laboratories or ("",) * len(self.targets)
        groups = list(zip(laboratories, self.targets, strict=True))
        in_group, in_laboratory = Counter(groups), Counter(laboratories)
        in_group_powers = {
            group: count ** (1 - recipe.class_balance) for group, count in in_group.items()
        }
        totals: dict[str, float] = defaultdict(float)
        for (laboratory, _), power in in_group_powers.items():
            totals[laboratory] += power
        weights = np.array(
            [
                in_laboratory[group[0]] ** (1 - recipe.laboratory_balance)
                * in_group_powers[group]
                / totals[group[0]]
                / in_group[group]
                for group in groups
            ]
        )
        share: FloatArray = weights / weights.sum()
        return share * (recipe.images_per_epoch or len(groups))


def place_of(number: int, device: torch.device) -> torch.device:
    """Where so many bytes of images are kept: a GPU's memory, if they fit into a quarter of it."""
    fits = device.type == "cuda" and 4 * number < torch.cuda.mem_get_info(device)[0]
    return device if fits else torch.device("cpu")


def prepare_data(
    recipe: Recipe,
    manifest: Manifest,
    cache: Path,
    classes: ClassSet | None = None,
    progress: ProgressCallback | None = None,
    attributes: AttributeTable | None = None,
) -> TrainingData:
    """The manifest's training images for a recipe, decoded into the cache folder.

    Rows of split `train` are trained on, and rows of split `val` validated on; without any
    such, every row is trained on and `val_fraction` of them is held out. By default every label is
    a class; rows whose label is none of `classes` are trained on as NO_CLASS, and not validated on.
    Subtypes, and `attributes` by the names of the files, are learnt besides if the recipe has an
    `auxiliary_weight`. Raises ManifestError for too few images, for rows with a scale where the
    recipe has no `microns`, and LeakageError where an image of the test split is also in train.
    """
    manifest = add_hashes(manifest)
    classes = classes or ClassSet.from_names(manifest.class_names())
    check_splits(manifest, classes)
    train, val = _choose_rows(recipe, manifest, classes)
    _check_scales((*train, *val), recipe)
    spec = recipe.spec
    frame_spec = widen_spec(spec)

    def cache_images(rows: Rows, wanted: InputSpec) -> ImageArray:
        return open_cache([row.view(manifest.root) for row in rows], wanted, cache, progress)

    def targets(rows: Rows) -> tuple[int, ...]:
        return tuple(classes.index(row.label) if row.label in classes else NO_CLASS for row in rows)

    laboratories = tuple(row.laboratory for row in train)
    auxiliary = None
    if recipe.auxiliary_weight > 0:
        auxiliary = collect_targets(replace(manifest, rows=train), classes, attributes)
    entries = [(row.sha256, _describe(row)) for row in (*train, *val)]
    if auxiliary is not None:
        known = zip(train, auxiliary.indices.tolist(), strict=True)
        entries += [(row.sha256, f"{auxiliary.columns} {values}") for row, values in known]
    return TrainingData(
        classes=classes,
        frames=cache_images(train, frame_spec),
        targets=targets(train),
        inner=spec.crop / frame_spec.crop,
        val_images=cache_images(val, spec) if val else None,
        val_targets=targets(val),
        digest=data_hash(entries),
        laboratories=laboratories if len(set(laboratories)) > 1 else (),
        auxiliary=auxiliary,
    )


def _choose_rows(recipe: Recipe, manifest: Manifest, classes: ClassSet) -> tuple[Rows, Rows]:
    """The rows to train on, and those to validate on, all of which are of the classes."""
    train, val = manifest.rows, Rows()
    if any(row.split for row in manifest.rows):
        train = manifest.select("train").rows
        val = tuple(row for row in manifest.rows if row.split == "val")
    if not val and recipe.val_fraction > 0:
        train, val = validation_split(train, recipe.val_fraction, recipe.seed)
    return train, tuple(row for row in val if row.label in classes)


def widen_spec(spec: InputSpec) -> InputSpec:
    """The spec that also shows what is around the input, as far as a whole image goes."""
    crop = min(1.0, spec.crop * MARGIN)
    wider = crop / spec.crop
    microns = None if spec.microns is None else spec.microns * wider
    return InputSpec(round(spec.size * crop / spec.crop), crop, microns)


def _check_scales(rows: Rows, recipe: Recipe) -> None:
    """Raises ManifestError for a row with a scale where the recipe does not know its own."""
    scaled = next((row for row in rows if row.um_per_pixel is not None), None)
    if scaled is not None and recipe.microns is None:
        raise ManifestError(
            f"{scaled.path}: its um_per_pixel is given, but the recipe does not say how many "
            "micrometres the model sees; set microns (--microns), or leave that column out"
        )


def _describe(row: ManifestRow) -> str:
    """The label, and the view's scale and centre where the row has any."""
    if row.um_per_pixel is None and row.centre is None:
        return row.label
    return f"{row.label} {row.um_per_pixel} {row.centre}"
