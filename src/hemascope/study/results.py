"""RunResult: what a finished run leaves for the tables, small enough to be committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hemascope.files import write_atomic
from hemascope.serialization import from_json, to_json
from hemascope.training.folder import EpochRecord, RunFolder
from hemascope.training.recipe import Recipe

RESULT = "result.json"
STUDY = "study.json"


@dataclass(frozen=True)
class Answers:
    """Class indices of N images in a fixed order: their labels, and what the network named.

    `data` identifies images, labels and order, so that only answers to the same are compared.
    """

    data: str
    targets: tuple[int, ...]
    named: tuple[int, ...]


@dataclass(frozen=True)
class RunResult:
    """One run, scored. `milliseconds` is the median time of one image in the exported network."""

    recipe: Recipe
    class_names: tuple[str, ...]
    train_images: int
    parameters: int
    multiply_accumulates: int
    milliseconds: float
    best_epoch: int
    val: Answers | None
    test: Answers
    provenance: dict[str, str]


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
        return RunFolder(self.path / digest)

    def result(self, digest: str) -> RunResult | None:
        """What the run came to, or None before it is finished."""
        path = self.path / digest / RESULT
        return from_json(path.read_bytes(), RunResult) if path.exists() else None

    def write_result(self, digest: str, result: RunResult) -> None:
        write_atomic(self.path / digest / RESULT, to_json(result))

    def epochs(self, digest: str) -> list[EpochRecord]:
        return self.run(digest).read_metrics()

    def facts(self) -> StudyFacts | None:
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


def finished(folder: StudyFolder, digests: Iterable[str]) -> dict[str, RunResult]:
    """The results that are there, by digest."""
    found = ((digest, folder.result(digest)) for digest in digests)
    return {digest: result for digest, result in found if result is not None}
