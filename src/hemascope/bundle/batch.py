"""Folders and lists of images of any size, classified into one table."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hemascope.bundle.classifier import Classifier
from hemascope.bundle.tables import KINDS, join, labels, row, table
from hemascope.data.manifest import read_manifest
from hemascope.preprocess import IMAGE_SUFFIXES
from hemascope.results import Prediction, from_json, to_json, write_whole

Progress = Callable[[int, int], None]
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
PART = 5_000  # images; a run that was stopped goes on after the last full part
JOB_FILE = "_job.json"
BEGUN = "was begun and stopped; --resume goes on with it, --force starts over"
OTHERS = (
    "was begun with other images, another model or other settings; "
    "go on with the same ones, or start over with --force"
)


@dataclass(frozen=True)
class Tally:
    """How many images were classified, how many of each class, and how many could not be read."""

    classified: int
    unreadable: int
    per_class: dict[str, int]


@dataclass(frozen=True)
class Job:
    """What a table is of: a run goes on only with the very same."""

    card_sha256: str
    tta: bool
    um_per_pixel: float | None
    images: int
    paths_sha256: str
    part: int = PART


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of the images that files, folders (with all below them) and globs name, in order.

    In folders, files that do not look like images by their suffix are passed over, and hidden
    ones; a file that is named itself is always taken. A .csv file is a manifest. Raises ValueError
    where an input matches nothing, or nothing was found at all, and ManifestError.
    """
    found: dict[str, None] = {}  # keeps the order, drops repeats
    for text in inputs:
        if os.path.isdir(text):
            paths = [path for path in files_below(text) if is_image(path)]
            missing = "holds no images"
        elif is_address(text):
            raise ValueError(f"{text}: images in an object store are classified with --cluster")
        elif os.path.lexists(text) and text.lower().endswith(".csv"):
            rows = read_manifest(Path(text)).rows
            paths, missing = [os.path.join(os.path.dirname(text), row.path) for row in rows], ""
        elif os.path.lexists(text):
            paths, missing = [text], ""
        else:
            matches = sorted(glob.glob(text, recursive=True))
            paths = [path for path in matches if is_image(path) and not os.path.isdir(path)]
            missing = "matches no images" if glob.has_magic(text) else "does not exist"
        if not paths:
            kinds = " ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{text}: {missing} (looked for {kinds})")
        found.update(dict.fromkeys(paths))
    if not found:
        raise ValueError("no images were named")
    return list(found)


def files_below(folder: str) -> Iterator[str]:
    """The files of a folder and of those in it, in order, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in shown)


def is_image(path: str) -> bool:
    """Whether it looks like an image by its suffix, and is not hidden."""
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def is_address(text: str) -> bool:
    """Whether it is an address, such as s3://bucket/cell.jpg, and not a path."""
    return ADDRESS.match(text) is not None


def classify_to(
    out: Path,
    classifier: Classifier,
    paths: list[str],
    each: Callable[[Prediction], None] | None = None,
    progress: Progress | None = None,
    um_per_pixel: float | None = None,
    resume: bool = False,
) -> Tally:
    """Classifies the images and writes one row each to `out`: .csv, .jsonl or .parquet.

    The columns are COLUMNS, and p_<class> in the model's order. `each` is handed every
    Prediction, with its class map; `um_per_pixel` is as in Classifier.stream. A path without a
    suffix is a folder of Parquet files, of 5,000 rows each.

    Rows are written in parts, each whole or not at all, in a hidden folder beside `out`, and the
    table appears whole at the end. A run that was stopped in whatever way goes on with `resume`
    after its last full part. Raises ValueError for an unknown suffix, where such parts lie
    and `resume` is not set, or where they are of other images, another model or other settings.
    """
    parts = Parts(out)
    job = job_of(classifier, paths, len(paths), um_per_pixel)
    counts: Counter[str | None] = Counter()
    names = classifier.card.classes.names
    try:
        parts.begin(job, resume)
        done = {path.name for path in parts.whole()}
        for name in done:
            counts.update(labels(parts.folder / name))
        for part in range(-(-len(paths) // PART)):
            if parts.path(part).name in done:
                continue
            chosen = paths[part * PART : (part + 1) * PART]
            with table(parts.path(part), names) as write:
                predictions = classifier.stream(
                    chosen, class_maps=each is not None, um_per_pixel=um_per_pixel
                )
                for prediction in predictions:
                    write(row(prediction, names))
                    counts[prediction.label] += 1
                    if each is not None:
                        each(prediction)
                    if progress is not None:
                        progress(counts.total(), len(paths))
        parts.finish()
    except BaseException:
        parts.leave()
        raise
    unreadable = counts.pop(None, 0)
    return Tally(len(paths) - unreadable, unreadable, {name: counts[name] for name in names})


def part_file(number: int, kind: str = ".parquet") -> str:
    """The name of a part of a table, counted from 0."""
    return f"part{number:06d}{kind}"


class Parts:
    """The parts of a table that is being written, and the folder they lie in."""

    def __init__(self, out: Path) -> None:
        """Raises ValueError for a suffix that no kind of table has."""
        kind = out.suffix.lower()
        if kind and kind not in KINDS:
            raise ValueError(
                f"{out}: unknown kind of table; use .csv, .jsonl or .parquet, or a name without a "
                "suffix for a folder of Parquet files"
            )
        self.out, self.stays = out, not kind
        self.kind = kind or ".parquet"
        self.folder = out if self.stays else out.with_name(f".{out.name}.parts")

    def path(self, part: int) -> Path:
        return self.folder / part_file(part, self.kind)

    def whole(self) -> list[Path]:
        """The parts that are written, in order."""
        return sorted(self.folder.glob(f"part??????{self.kind}"))

    def begin(self, job: Job, resume: bool) -> None:
        """Leaves the parts of this very job, if it goes on. Raises ValueError as said above."""
        file = self.folder / JOB_FILE
        if resume and file.exists():
            if from_json(file.read_bytes(), Job) != job:
                raise ValueError(f"{self.out}: {OTHERS}")
            for torn in self.folder.glob(".part*"):  # of a run that was killed
                torn.unlink()
            return
        if self.stays:
            for path in self.whole():  # an older table, which may be replaced
                path.unlink()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        write_whole(file, to_json(job))

    def finish(self) -> None:
        """The table out of its parts."""
        if not self.stays:
            join(self.whole(), self.out)
            for path in reversed(self.whole()):  # so that those left are always the first
                path.unlink()
        (self.folder / JOB_FILE).unlink()
        if not self.stays:
            self.folder.rmdir()

    def leave(self) -> None:
        """Nothing, where nothing is worth going on with."""
        if not self.whole():
            (self.folder / JOB_FILE).unlink(missing_ok=True)
            if self.folder.exists() and not any(self.folder.iterdir()):
                self.folder.rmdir()


def unfinished(out: Path) -> bool:
    """Whether a table was begun there that `resume` could go on with."""
    return (Parts(out).folder / JOB_FILE).exists()


def finished(out: Path) -> bool:
    """Whether there is something at that path which a new table would replace."""
    parts = Parts(out)
    return bool(parts.whole()) if parts.stays and out.is_dir() else out.exists()


def job_of(
    classifier: Classifier, names: Iterable[str], images: int, um_per_pixel: float | None
) -> Job:
    """The Job of classifying so many images, which lie in what the names name."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    return Job(
        card_sha256=hashlib.sha256(to_json(classifier.card)).hexdigest(),
        tta=classifier.tta,
        um_per_pixel=um_per_pixel,
        images=images,
        paths_sha256=digest.hexdigest(),
    )
