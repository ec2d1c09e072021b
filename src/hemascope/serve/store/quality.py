"""How far machine and people agree, and how long reviews take: from what was signed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from hemascope.arrays import IntArray
from hemascope.metrics.agreement import cohen_kappa
from hemascope.metrics.intervals import wilson
from hemascope.records import Estimate, Proportion
from hemascope.serve.store.schema import samples, signatures

Pairs = Sequence[tuple[str, str]]
"""(one rater's label, the other's) of each cell."""


@dataclass(frozen=True)
class SignedReview:
    """A version of a sample as it was signed: who, when, how long it took, and each cell's labels.

    `labels` are (number of the cell, the machine's label, the one that was signed).
    """

    sample_id: str
    sample: str
    version: int
    name: str
    signed: str
    seconds: float | None
    labels: tuple[tuple[int, str, str], ...]

    @property
    def pairs(self) -> Pairs:
        """The machine's label and the person's of each cell."""
        return [(machine, label) for _, machine, label in self.labels]


@dataclass(frozen=True)
class ClassAgreement:
    """How often each rater gave a label, and both; with kappa of this label against the rest."""

    label: str
    first: int
    second: int
    both: int
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """Of two raters: the share of cells with one label, kappa, and the confusion (K,K)."""

    labels: tuple[str, ...]
    confusion: IntArray
    alike: Proportion
    kappa: Estimate
    classes: tuple[ClassAgreement, ...]


@dataclass(frozen=True)
class Period:
    """Signed reviews that belong together, by time or by user."""

    name: str
    reviews: int
    alike: Proportion
    kappa: Estimate
    minutes: float | None


def list_reviews(connection: Connection) -> list[SignedReview]:
    """All versions that were signed, the earliest first; of two signatures the one that locked."""
    query = (
        select(signatures, samples.c.name.label("sample"))
        .join(samples, samples.c.id == signatures.c.sample_id)
        .order_by(signatures.c.id)
    )
    found = {}
    for row in connection.execute(query):
        labels = tuple(map(tuple, msgspec.json.decode(row.labels)))
        found[row.sample_id, row.version] = SignedReview(
            row.sample_id, row.sample, row.version, row.name, row.signed, row.seconds, labels
        )
    return list(found.values())


def latest_reviews(reviews: Iterable[SignedReview]) -> list[SignedReview]:
    """The last version of each sample."""
    return list({review.sample_id: review for review in reviews}.values())


def pair_amended(reviews: Iterable[SignedReview]) -> Pairs:
    """The label of each cell as it was signed first and last, of samples that were amended."""
    by_sample: dict[str, list[SignedReview]] = defaultdict(list)
    for review in reviews:
        by_sample[review.sample_id].append(review)
    pairs = []
    for first, *_, last in (versions for versions in by_sample.values() if len(versions) > 1):
        before = {cell: label for cell, _, label in first.labels}
        pairs += [(before[cell], label) for cell, _, label in last.labels if cell in before]
    return pairs


def measure_agreement(pairs: Pairs) -> Agreement:
    """The agreement of two raters over all labels that either gave; an empty one is of none.

    >>> found = measure_agreement([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
    >>> found.confusion.tolist(), found.kappa.value
    ([[1, 1], [0, 2]], 0.5)
    """
    labels = tuple(sorted({label for pair in pairs for label in pair}))
    place = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for first, second in pairs:
        confusion[place[first], place[second]] += 1
    classes = tuple(_of_class(confusion, index, label) for index, label in enumerate(labels))
    alike = wilson(int(np.trace(confusion)), len(pairs))
    return Agreement(labels, confusion, alike, cohen_kappa(confusion), classes)


def _of_class(confusion: IntArray, index: int, label: str) -> ClassAgreement:
    first, second = int(confusion[index].sum()), int(confusion[:, index].sum())
    both, n = int(confusion[index, index]), int(confusion.sum())
    table = [[both, first - both], [second - both, n - first - second + both]]
    return ClassAgreement(label, first, second, both, cohen_kappa(table))


def divide(reviews: Iterable[SignedReview], key: Callable[[SignedReview], str]) -> list[Period]:
    """The agreement of machine and person, and the time per sample, for each group of reviews."""
    groups: dict[str, list[SignedReview]] = defaultdict(list)
    for review in reviews:
        groups[key(review)].append(review)
    periods = []
    for name, group in sorted(groups.items()):
        found = measure_agreement([pair for review in group for pair in review.pairs])
        times = [review.seconds / 60 for review in group if review.seconds is not None]
        middle = median(times) if times else None
        periods.append(Period(name, len(group), found.alike, found.kappa, middle))
    return periods
