"""Station: what all review pages share; the import of samples in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image
from sqlalchemy import Connection

from hemascope.decoding import decode
from hemascope.errors import HemascopeError
from hemascope.serve.counting import CancelledError, Counting
from hemascope.serve.pages.learning import Learning
from hemascope.serve.pages.small import SmallImages
from hemascope.serve.pages.texts import Language
from hemascope.serve.store.added import locate_by_hand
from hemascope.serve.store.bundles import fail_unfinished
from hemascope.serve.store.database import Store
from hemascope.serve.store.recount import recount
from hemascope.serve.store.review import ReviewedCell
from hemascope.serve.store.samples import (
    StoredSample,
    fail_sample,
    fill_sample,
    find_sample,
    list_images,
    list_unfinished,
    read_fields,
)
from hemascope.smear.counted import DifferentialCount, NamedCell, NamedField
from hemascope.smear.differential import CountOptions
from hemascope.smear.naming import name_cells
from hemascope.smear.records import Box
from hemascope.smear.samples import Sample

DECODED = 8  # fields that are kept decoded
logger = logging.getLogger("hemascope.serve")


@dataclass(frozen=True, eq=False)
class Station:
    """A store, and the networks that locate and name.

    `folders` are where samples may be imported from. With `needs_two`, two people sign. `secure`
    lets browsers send the session over HTTPS only. `language` is that of the pages; by default they
    are in the browser's.
    """

    store: Store
    counting: Counting
    folders: tuple[Path, ...] = ()
    needs_two: bool = False
    secure: bool = False
    language: Language | None = None
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    learning: Learning = field(init=False)
    small: SmallImages = field(init=False)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "import"))
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning", Learning(self.store, self.counting.classifier))
        object.__setattr__(self, "small", SmallImages(partial(read_image, self.store)))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Goes on with imports that a stop has left; what is not finished at the end is left so."""
        fail_unfinished(self.store)
        with self.store.reading() as connection:
            unfinished = list_unfinished(connection)
        for sample_id in unfinished:
            self.locate(sample_id)
        try:
            yield
        finally:
            self._stopping.set()
            self._pool.shutdown(cancel_futures=True)
            self.learning.close()
            self.small.close()

    def locate(self, sample_id: str) -> None:
        """Lets the cells of a sample be located and named when it is its turn."""
        self._pool.submit(self._locate, sample_id)

    def recount(
        self, connection: Connection, sample: StoredSample, cells: list[ReviewedCell]
    ) -> DifferentialCount:
        """The count of a sample by its labels. Raises SampleError."""
        options = CountOptions(sample.um_per_pixel, False, self.counting.locator_sha256)
        fields = read_fields(connection, sample.id)
        card = self.counting.classifier.card
        return recount(sample.name, fields, cells, card, sample.wbc, options)

    def name_by_hand(self, sha256: str, field: NamedField, box: Box) -> NamedCell:
        """The cell in a box that a person drew on a field, as the model names it."""
        cell = locate_by_hand(field, box)
        image, alone = read_image(self.store, sha256), self.counting.classifier.on_one_processor
        whole = [] if cell.at_border else [cell]
        named = name_cells(image, field.path, whole, field.um_per_pixel, alone)
        return NamedCell(cell, named.get(cell))

    def _locate(self, sample_id: str) -> None:
        try:
            self._name(sample_id)
        except CancelledError:
            return
        except HemascopeError as error:
            fail_sample(self.store, sample_id, self._without_paths(str(error), sample_id))
        except Exception:
            logger.exception("the import of %s failed", sample_id)
            fail_sample(self.store, sample_id, "the station failed; its log says why")
        finally:
            self.progress.pop(sample_id, None)

    def _name(self, sample_id: str) -> None:
        with self.store.reading() as connection:
            stored = find_sample(connection, sample_id)
            images = list_images(connection, sample_id)
        if stored is None:
            return
        paths = tuple(str(self.store.images.path(sha256)) for _, sha256 in images)
        sample = Sample(stored.name, paths, stored.wbc)

        def advance(done: int, total: int) -> None:
            self.progress[sample_id] = (done, total)

        named = self.counting.name(
            sample, stored.um_per_pixel, advance, self._stopping.is_set, takes_single=True
        )
        fields = [_renamed(found, name) for found, (name, _) in zip(named, images, strict=True)]
        model = self.counting.classifier.card.model_sha256
        fill_sample(self.store, sample_id, fields, model, self.counting.locator_sha256)
        for found, (_, sha256) in zip(fields, images, strict=True):
            if found.status == "ok" and not self._stopping.is_set():
                self.small.prepare(sha256, found)

    def _without_paths(self, text: str, sample_id: str) -> str:
        with self.store.reading() as connection:
            for name, sha256 in list_images(connection, sample_id):
                text = text.replace(str(self.store.images.path(sha256)), name)
        return text


def _renamed(found: NamedField, name: str) -> NamedField:
    """A field by the name that it was given, without its place in the store."""
    cells = tuple(
        replace(cell, prediction=cell.prediction and replace(cell.prediction, image_id=name))
        for cell in found.cells
    )
    status = found.status.replace(found.path, name)
    return replace(found, path=name, status=status, cells=cells)


@lru_cache(maxsize=DECODED)
def read_image(store: Store, sha256: str) -> Image.Image:
    """A field of the store, decoded; it must not be changed."""
    return decode(store.images.read(sha256))
