"""RunResult: what a finished run leaves for the tables, small enough to be committed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hemascope.files import write_atomic
from hemascope.serialization import from_json, to_json
from hemascope.training.folder import EpochRecord, RunFolder
from hemascope.training.recipe import Recipe

RESULT = "result.json"
STUDY = "study.json"


@dataclass(frozen=True)
class PredictedClasses:
    """Class indices of N images in a fixed order: their labels, and what the network predicted.

    `data` identifies images, labels and order, so that only predictions of the same are compared.
    """

    data: str
    targets: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class RunResult:
    """One run, scored.

    `milliseconds` is the median time of one image in the exported network, on processors, and
    `gpu_milliseconds` that of the network as it was trained, on the GPU if there was one.
    """

    recipe: Recipe
    class_names: tuple[str, ...]
    train_images: int
    parameters: int
    multiply_accumulates: int
    milliseconds: float
    best_epoch: int
    val: PredictedClasses | None
    test: PredictedClasses
    provenance: dict[str, str]
    gpu_milliseconds: float | None = None


@dataclass(frozen=True)
class StudyFacts:
    """study.json: which profile a folder's runs belong to, and on which images they ran."""

    profile: str
    train_data: str
    test_data: str


@dataclass(frozen=True)
class StudyFolder:
    """A folder with one run folder a recipe, named by the recipe's hash."""

    path: Path

    def run(self, digest: str) -> RunFolder:
        """The folder of the run with this digest."""
        return RunFolder(self.path / digest)

    def result(self, digest: str) -> RunResult | None:
        """What the run came to, or None before it is finished."""
        path = self.path / digest / RESULT
        return from_json(path.read_bytes(), RunResult) if path.exists() else None

    def write_result(self, digest: str, result: RunResult) -> None:
        """Writes the result of a run."""
        write_atomic(self.path / digest / RESULT, to_json(result))

    def epochs(self, digest: str) -> list[EpochRecord]:
        """The epochs that a run has finished."""
        return self.run(digest).read_metrics()

    def facts(self) -> StudyFacts | None:
        """What study.json says; None where it is missing."""
        path = self.path / STUDY
        return from_json(path.read_bytes(), StudyFacts) if path.exists() else None

    def claim(self, facts: StudyFacts) -> None:
        """Makes this the folder of that study. Raises ValueError where it is another's."""
        found = self.facts()
        if found is None:
            write_atomic(self.path / STUDY, to_json(facts))
        elif found != facts:
            what = "profile" if found.profile != facts.profile else "images"
            raise ValueError(
                f"{self.path}: holds a study of another {what} ({STUDY}); take another folder"
            )
