"""Learning in the background: signed labels → an adapted bundle → a comparison with the present."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hemascope.arrays import BoolArray
from hemascope.bundle.bundle import read_bundle, write_bundle
from hemascope.data.manifest import Manifest
from hemascope.data.open_manifest import open_manifest
from hemascope.errors import HemascopeError
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.post_training.adapt import adapt
from hemascope.serve.counting import CancelledError
from hemascope.serve.store import audit
from hemascope.serve.store.bundles import (
    STOPPED,
    Comparison,
    add_bundle,
    fail_bundle,
    find_bundle,
    finish_bundle,
    folder_of,
    keep_comparison,
)
from hemascope.serve.store.database import Store
from hemascope.serve.store.people import User
from hemascope.serve.store.quality import SignedReview, latest_reviews, list_reviews
from hemascope.serve.store.review import ConflictError
from hemascope.serve.store.samples import list_images
from hemascope.serve.store.signed_labels import MANIFEST, export_labels

LONGEST = 1000  # characters of doubts that are kept
logger = logging.getLogger("hemascope.serve")


@dataclass(frozen=True, eq=False)
class Learning:
    """What learns: one bundle at a time, from the labels of a store and the present classifier."""

    store: Store
    classifier: Classifier
    _stopping: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "learn"))

    def start(self, user: User, name: str, left_out: int) -> str:
        """Begins a bundle from all signed samples but the latest ones, which compare it later.

        Raises ConflictError where no sample is left to learn from, or a bundle is being made.
        """
        signed = self.list_signed()
        learnt = signed[: len(signed) - left_out]
        if not learnt:
            raise ConflictError("no signed sample is left to learn from")
        bundle_id = add_bundle(self.store, user, name, learnt[-1].signed, len(learnt))
        self._pool.submit(self._learn, bundle_id, name, {review.sample_id for review in learnt})
        return bundle_id

    def compare(self, bundle_id: str) -> None:
        """Compares a bundle with the present one on samples that were signed since."""
        self._pool.submit(self._compare, bundle_id)

    def close(self) -> None:
        """Gives up what is being learnt, waits for a comparison that runs, and begins no more."""
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)

    def _advance(self, done: int, total: int) -> None:
        if self._stopping.is_set():
            raise CancelledError(STOPPED)

    def list_signed(self) -> list[SignedReview]:
        """The last version of each signed sample, by when it was signed."""
        with self.store.reading() as connection:
            reviews = latest_reviews(list_reviews(connection))
        return sorted(reviews, key=lambda review: review.signed)

    def _learn(self, bundle_id: str, name: str, chosen: set[str]) -> None:
        try:
            with TemporaryDirectory(prefix="hemascope-learn-") as folder:
                manifest = self._export(Path(folder), chosen)
                doubts: list[str] = []
                made = adapt(
                    self.classifier.bundle, manifest, name, self._advance, doubts=doubts.append
                )
                write_bundle(made, folder_of(self.store, bundle_id))
            said = "\n".join(doubts)[:LONGEST]
            finish_bundle(self.store, bundle_id, len(manifest.rows), said)
            self._compare(bundle_id)
        except HemascopeError as error:
            fail_bundle(self.store, bundle_id, str(error))
        except Exception:
            logger.exception("learning %s failed", bundle_id)
            fail_bundle(self.store, bundle_id, "the station failed; its log says why")

    def _compare(self, bundle_id: str) -> None:
        with self.store.reading() as connection:
            stored = find_bundle(connection, bundle_id)
        signed = self.list_signed()
        later = {one.sample_id for one in signed if stored and one.signed > stored.until}
        learnt = self._images(one.sample_id for one in signed if one.sample_id not in later)
        new = Classifier(read_bundle(folder_of(self.store, bundle_id)), self.classifier.threads)
        with TemporaryDirectory(prefix="hemascope-compare-") as folder:
            found = self._export(Path(folder), later) if later else Manifest(Path(folder), ())
            rows = tuple(row for row in found.rows if row.sha256 not in learnt)
            if not rows:
                return
            manifest = replace(found, rows=rows)
            right, before = (_is_right(one, manifest) for one in (new, self.classifier))
        comparison = Comparison(
            self.classifier.card.name,
            audit.now(),
            len({row.group for row in rows}),
            wilson(int(right.sum()), len(right)),
            wilson(int(before.sum()), len(before)),
            better=int((right & ~before).sum()),
            worse=int((before & ~right).sum()),
        )
        keep_comparison(self.store, bundle_id, comparison)

    def _images(self, sample_ids: Iterable[str]) -> set[str]:
        with self.store.reading() as connection:
            return {sha256 for each in sample_ids for _, sha256 in list_images(connection, each)}

    def _export(self, folder: Path, chosen: set[str]) -> Manifest:
        export_labels(self.store, folder, chosen=chosen)
        return open_manifest(folder / MANIFEST)


def _is_right(classifier: Classifier, manifest: Manifest) -> BoolArray:
    made = classifier.predict(manifest.views())
    pairs = zip(made, manifest.rows, strict=True)
    return np.array([prediction.label == row.label for prediction, row in pairs], dtype=bool)
