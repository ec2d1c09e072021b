"""Shards: the files that a table is written in, so that a run that was stopped can go on.

A shard holds up to 5,000 rows and appears whole or not at all. A job file beside the shards
describes the run: which images, which model, which settings. It exists while the table is
unfinished, and only the same job can go on. One process and the workers of a cluster follow this
protocol alike, so that either can finish what the other began.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hemascope.batch.extra_columns import NO_EXTRA, ExtraColumns
from hemascope.batch.inputs import Item
from hemascope.batch.table import COLUMNS
from hemascope.files import sha256_of, write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.serialization import from_json, to_json

SHARD_ROWS = 5_000
SHARD_FILE = re.compile(r"part\d{6,}(\.csv|\.jsonl|\.parquet)")
JOB_FILE = "_job.json"


@dataclass(frozen=True)
class Job:
    """What determines the rows of a table; only a run with an equal Job can go on with it."""

    card_sha256: str
    tta: bool
    um_per_pixel: float | str | None
    images: int
    paths_sha256: str
    shard_rows: int = SHARD_ROWS
    columns: tuple[str, ...] = ()  # but for those of the classes; older versions had others


def job_of(
    classifier: Classifier,
    names: Iterable[Item],
    images: int,
    um_per_pixel: float | str | None,
    extra: ExtraColumns = NO_EXTRA,
) -> Job:
    """The Job of classifying `images` images.

    `names` are their paths, with scales and places of their own, or the names of the files and row
    groups that they lie in.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name if isinstance(name, str) else repr(name)) + b"\0")
    return Job(
        card_sha256=sha256_of(to_json(classifier.card)),
        tta=classifier.tta,
        um_per_pixel=um_per_pixel,
        images=images,
        paths_sha256=digest.hexdigest(),
        columns=(*COLUMNS, *extra.columns),
    )


def shard_file(number: int, kind: str = ".parquet") -> str:
    """The name of a shard, counted from 0."""
    return f"part{number:06d}{kind}"


class ShardFolder(Protocol):
    """Where shards lie: a folder on a disk, or a prefix in an object store."""

    def names(self) -> list[str]:
        """The names of the files in the folder."""

    def read(self, name: str) -> bytes:
        """The content of a file. Raises OSError."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""

    def remove(self, name: str) -> None:
        """Removes a file that may be missing."""


class DiskFolder:
    """A ShardFolder on a disk, without pyarrow; it need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The names of the files in the folder; none where it does not exist."""
        return sorted(path.name for path in self.path.glob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        write_atomic(self.path / name, content)

    def remove(self, name: str) -> None:
        """Removes a file that may be missing."""
        (self.path / name).unlink(missing_ok=True)


class Shards:
    """The shards of one table in a folder; `table` is the table's name in messages."""

    def __init__(self, folder: ShardFolder, table: str) -> None:
        self.folder, self.table = folder, table

    def list_written(self) -> list[str]:
        """The names of the shards that are written, in order."""
        return [name for name in self.folder.names() if SHARD_FILE.fullmatch(name)]

    def is_begun(self) -> bool:
        """Whether a table was begun here and not finished."""
        return JOB_FILE in self.folder.names()

    @contextmanager
    def working_on(self, job: Job, resume: bool, force: bool) -> Iterator[None]:
        """Begins a job. If it fails before any shard is written, removes the job file again."""
        self.begin(job, resume, force)
        try:
            yield
        except BaseException:
            if not self.list_written() and self.is_begun():
                self.folder.remove(JOB_FILE)
            raise

    def begin(self, job: Job, resume: bool, force: bool) -> None:
        """Prepares the folder for a job.

        With `resume`, the shards of the same job are kept if it was begun; otherwise all shards are
        removed. Raises ValueError for a table that was begun where neither flag is set, for a
        finished table without `force`, and for a table that another job began.
        """
        begun = self.is_begun()
        if begun and not (resume or force):
            raise ValueError(
                f"{self.table}: was begun and stopped; --resume goes on with it, "
                "--force starts over"
            )
        if not begun and not force and self.list_written():
            raise ValueError(f"{self.table}: exists already; use --force to replace it")
        self._remove_torn()
        if begun and resume:
            if from_json(self.folder.read(JOB_FILE), Job) != job:
                raise ValueError(
                    f"{self.table}: was begun with other images, another model or other settings; "
                    "go on with the same ones, or start over with --force"
                )
            return
        for name in self.list_written():
            self.folder.remove(name)
        self.folder.write(JOB_FILE, to_json(job))

    def finish(self) -> None:
        """Removes the job file, which marks the table as whole."""
        self._remove_torn()
        self.folder.remove(JOB_FILE)

    def _remove_torn(self) -> None:
        """Removes unfinished files of processes that were killed while they wrote."""
        for name in self.folder.names():
            if name.startswith((".part", f".{JOB_FILE}.")):
                self.folder.remove(name)
