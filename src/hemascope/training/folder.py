"""RunFolder: where a run keeps its recipe, its curves, its checkpoints and its bundle."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hemascope.classes import ClassSet
from hemascope.files import atomic_path
from hemascope.serialization import from_strings


@dataclass(frozen=True)
class EpochRecord:
    """One row of metrics.csv. Accuracies from 0 to 1; validation is None without any images."""

    epoch: int
    image_size: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    images_per_second: float
    memory_mb: float
    """The most memory that the process has had so far: the GPU's, or the main memory."""


@dataclass(frozen=True)
class RunFacts:
    """provenance.json: what a run learnt from, and where it ran.

    `outliers` counts those of the training images that show none of the classes.
    """

    classes: ClassSet
    train_images: int
    val_images: int
    data: str
    provenance: dict[str, str]
    outliers: int = 0


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, by name."""

    path: Path

    @property
    def start(self) -> Path:
        """The weights that the run began with, where it began with trained ones."""
        return self.path / "start.safetensors"

    @property
    def recipe(self) -> Path:
        """The recipe of the run."""
        return self.path / "recipe.json"

    @property
    def provenance(self) -> Path:
        """What the run was trained on, and where."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.path / "metrics.csv"

    @property
    def curves(self) -> Path:
        """Loss and accuracy by epoch, drawn."""
        return self.path / "curves.png"

    @property
    def last(self) -> Path:
        """The whole state after the last full epoch."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def auxiliary(self) -> Path:
        """The layer that told subtypes and attributes in the best epoch, where any were learnt."""
        return self.path / "auxiliary.safetensors"

    def snapshot(self, cycle: int) -> Path:
        """The weights at the end of a cycle, counted from 1."""
        return self.path / f"snapshot{cycle}.safetensors"

    @property
    def events(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "events"

    @property
    def bundle(self) -> Path:
        """The folder of the bundle that the run was exported to."""
        return self.path / "bundle"

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """Writes the records of all epochs so far."""
        names = [field.name for field in fields(EpochRecord)]
        with (
            atomic_path(self.metrics) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(asdict(record) for record in records)

    def read_metrics(self) -> list[EpochRecord]:
        """The epochs recorded so far; none for a new run."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            rows = (
                {name: text or None for name, text in row.items()} for row in csv.DictReader(file)
            )
            return [from_strings(row, EpochRecord) for row in rows]


def best_record(records: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch whose weights are kept: highest validation accuracy, then lowest loss, then first.

    Without validation it is the last. Raises ValueError where there are none.
    """
    if not records:
        raise ValueError("no epoch is finished yet")
    if records[-1].val_accuracy is None:
        return records[-1]
    return max(records, key=lambda record: (record.val_accuracy or 0, -(record.val_loss or 0)))
