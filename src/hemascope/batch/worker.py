"""Worker: classifies the images of one shard and writes them as one file of the table."""

from __future__ import annotations

import io
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import ray

from hemascope.batch.extra_columns import ExtraColumns
from hemascope.batch.inputs import Item, is_address, path_of, view_of
from hemascope.batch.parquet_images import Slice, images_of
from hemascope.batch.pool import Tries
from hemascope.batch.shards import shard_file
from hemascope.batch.storage import Folder, read, reason
from hemascope.batch.table import columns_of, parquet_outcomes, parquet_rows, row
from hemascope.batch.tally import Outcome, outcome_of
from hemascope.bundle.bundle import Bundle
from hemascope.decoding.limits import set_max_pixels
from hemascope.errors import ImageError
from hemascope.inference.classifier import Classifier
from hemascope.inference.order import map_ahead
from hemascope.predictions import Prediction
from hemascope.preprocess import View

READERS = 16  # files that a worker asks an object store for at once


@dataclass(frozen=True)
class Shard:
    """The images of one file of the table, or the slices of Parquet files that they are in."""

    number: int
    images: tuple[Item, ...] = ()
    slices: tuple[Slice, ...] = ()

    @property
    def file(self) -> str:
        """Name of the file that the shard is written to."""
        return shard_file(self.number)


@dataclass(frozen=True)
class Settings:
    """What all workers of a run are given.

    A worker is another process, possibly on another machine, and sees nothing of this process but
    these values. `out` is the folder of the table, as an absolute path or an address. `home` is the
    folder that relative image paths start from.
    """

    bundle: ray.ObjectRef[Bundle]
    tta: bool
    um_per_pixel: float | None
    max_pixels: int
    out: str
    home: str
    tries: Tries
    extra: ExtraColumns


class Worker:
    """Classifies one shard after the other; each process of Ray's pool holds one Worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        set_max_pixels(settings.max_pixels)
        self.classifier = Classifier(ray.get(settings.bundle), threads=1, tta=settings.tta)
        self.folder = Folder(settings.out)

    def __call__(self, given: dict[str, Any]) -> dict[str, Any]:
        """What a Tally counts of the shard, or a sentence that says why nothing is counted."""
        shard: Shard = pickle.loads(given["part"])
        first = path_of(shard.images[0]) if shard.images else shard.slices[0].file
        tries = self.settings.tries
        return tries.answer(shard.number, shard.file, first, lambda: self.counts(shard))

    def counts(self, shard: Shard) -> Counter[Outcome]:
        """What a Tally counts of the shard; writes its file, unless the file exists already."""
        if self.folder.has(shard.file):
            return Counter(parquet_outcomes(io.BytesIO(self.folder.read(shard.file))))
        counts: Counter[Outcome] = Counter()
        names, buffer = self.classifier.card.classes.names, io.BytesIO()
        extra = self.settings.extra
        with parquet_rows(buffer, columns_of(names, extra)) as write:
            for prediction in self.predictions(shard):
                values = row(prediction, names, extra)
                write(values)
                counts[outcome_of(values)] += 1
        self.folder.write(shard.file, buffer.getvalue())
        return counts

    def predictions(self, shard: Shard) -> Iterator[Prediction]:
        """The predictions of a shard's images, in order."""
        names: list[str] = []
        failures: dict[int, str] = {}

        def views() -> Iterator[View]:
            for item, content in self._images(shard):
                if isinstance(content, ImageError):
                    failures[len(names)] = str(content)
                names.append(path_of(item))
                found = b"" if isinstance(content, ImageError) else content
                yield replace(view_of(item, self.settings.um_per_pixel), image=found)

        predictions = self.classifier.stream(views())
        for index, prediction in enumerate(predictions):
            status = failures.get(index, prediction.status)
            yield replace(prediction, image_id=names[index], status=status)

    def _images(self, shard: Shard) -> Iterator[tuple[Item, str | bytes | ImageError]]:
        with ThreadPoolExecutor(READERS) as pool:
            names = [path_of(item) for item in shard.images]
            contents = map_ahead(pool, self._content, names, 2 * READERS)
            yield from zip(shard.images, contents, strict=True)
        for row_group in shard.slices:
            yield from images_of(row_group, self._absolute(row_group.file))

    def _content(self, name: str) -> str | bytes | ImageError:
        """The path of an image on a disk, the bytes of another; or why it cannot be read."""
        if not is_address(name):
            return self._absolute(name)
        try:
            return read(name)
        except OSError as error:
            return ImageError(reason(error))

    def _absolute(self, name: str) -> str:
        return name if is_address(name) else os.path.join(self.settings.home, name)
