"""TrainingData: a manifest's rows as cached frames, split and ready to be batched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.classes import ClassSet
from hemascope.data.cache import open_cache
from hemascope.data.dataset import Batch, CellDataset, test_loader, train_loader
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.data.splits import add_hashes, check_splits, validation_split
from hemascope.preprocess import InputSpec
from hemascope.provenance import data_hash
from hemascope.training.recipe import Recipe

MARGIN = 1.42  # √2: what the corners of a turned square reach for


@dataclass(frozen=True)
class TrainingData:
    """Frames to train on (N,F,F,3), images to validate on (M,S,S,3), their class indices.

    A frame shows more than the model's input, where the image has more: `inner` is the input's
    part of its side. `digest` identifies images and labels.
    """

    classes: ClassSet
    frames: ImageArray
    targets: tuple[int, ...]
    inner: float
    val_images: ImageArray | None
    val_targets: tuple[int, ...]
    digest: str

    def loaders(self, recipe: Recipe) -> tuple[DataLoader[Batch], DataLoader[Batch] | None]:
        """Batches to train on, and to validate on if anything is held out."""
        train = train_loader(CellDataset(self.frames, self.targets), recipe.batch_size, recipe.seed)
        if self.val_images is None:
            return train, None
        val = CellDataset(self.val_images, self.val_targets)
        return train, test_loader(val, recipe.batch_size)


def prepare_data(
    recipe: Recipe,
    manifest: Manifest,
    cache: Path,
    classes: ClassSet | None = None,
    progress: ProgressCallback | None = None,
) -> TrainingData:
    """The manifest's training images for a recipe, decoded into the cache folder.

    Rows of split `train` are trained on, and rows of split `val` validated on; without any
    such, every row is trained on and `val_fraction` of them is held out. Raises ManifestError for
    too few images and LeakageError where an image of the test split is also in train.
    """
    manifest = add_hashes(manifest)
    check_splits(manifest)
    classes = classes or ClassSet.from_names(manifest.class_names())
    train, val = manifest.rows, tuple[ManifestRow, ...]()
    if any(row.split for row in manifest.rows):
        train = manifest.select("train").rows
        val = tuple(row for row in manifest.rows if row.split == "val")
    if not val and recipe.val_fraction > 0:
        train, val = validation_split(train, recipe.val_fraction, recipe.seed)
    spec = recipe.spec
    crop = min(1.0, spec.crop * MARGIN)
    frame_spec = InputSpec(round(spec.size * crop / spec.crop), crop)

    def cache_images(rows: tuple[ManifestRow, ...], wanted: InputSpec) -> ImageArray:
        return open_cache([manifest.root / row.path for row in rows], wanted, cache, progress)

    def targets(rows: tuple[ManifestRow, ...]) -> tuple[int, ...]:
        return tuple(classes.index(row.label) for row in rows)

    return TrainingData(
        classes=classes,
        frames=cache_images(train, frame_spec),
        targets=targets(train),
        inner=spec.crop / frame_spec.crop,
        val_images=cache_images(val, spec) if val else None,
        val_targets=targets(val),
        digest=data_hash((row.sha256, row.label) for row in (*train, *val)),
    )
