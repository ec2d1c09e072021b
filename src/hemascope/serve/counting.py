"""count_uploads: fields on the disk → named fields and their count, which can be stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from hemascope.arrays import ProgressCallback
from hemascope.errors import HemascopeError, SampleError
from hemascope.inference.classifier import Classifier
from hemascope.smear.counted import DifferentialCount, NamedField
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.naming import FieldLocator, name_fields, probe_sample
from hemascope.smear.samples import Sample


class CancelledError(HemascopeError):
    """A count that somebody stopped."""


@dataclass(frozen=True)
class Counting:
    """What counts: the networks that find and name cells. `locator_sha256` is the finder's."""

    classifier: Classifier
    locator: FieldLocator
    locator_sha256: str

    def name(
        self,
        sample: Sample,
        um_per_pixel: float | None = None,
        progress: ProgressCallback | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        takes_single: bool = False,
    ) -> Iterator[NamedField]:
        """The sample's fields, located and named, one by one; with `takes_single`, also single
        cells.

        Raises SampleError for a sample that cannot be counted, and CancelledError.
        """
        bundle = self.classifier.bundle if takes_single else None
        probe = probe_sample(sample, self.locator, um_per_pixel, bundle)
        if probe.refused:
            raise SampleError(probe.refused)
        pairs = [(sample.name, path) for path in sample.paths]
        named = name_fields(pairs, {sample.name: probe}, self.locator, self.classifier)
        with closing(named):  # type: ignore[type-var]
            for index, found in enumerate(named, start=1):
                if is_cancelled():
                    raise CancelledError("cancelled")
                if progress is not None:
                    progress(index, len(pairs))
                yield found

    def count(
        self, sample: Sample, fields: Sequence[NamedField], um_per_pixel: float | None = None
    ) -> DifferentialCount:
        """The count of named fields. Raises SampleError."""
        options = CountOptions(um_per_pixel, locator_sha256=self.locator_sha256)
        return count_sample(sample.name, fields, self.classifier.card, sample.wbc, options)


def rename_count(count: DifferentialCount, names: Mapping[str, str]) -> DifferentialCount:
    """The count with its fields by these names, and none of their paths."""
    pattern = re.compile("|".join(map(re.escape, names)))

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: names[match[0]], text)

    return replace(
        count,
        unreadable=tuple(map(renamed, count.unreadable)),
        status=renamed(count.status),
        flags=tuple(
            replace(
                flag,
                text=renamed(flag.text),
                cells=tuple(replace(cell, path=renamed(cell.path)) for cell in flag.cells),
            )
            for flag in count.flags
        ),
    )
