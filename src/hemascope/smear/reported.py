"""Quantities of a differential count, as exchange formats report them: code, value, interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hemascope.classes import LoincCode, find_counted_class
from hemascope.records import Interval, Proportion
from hemascope.smear.counted import ClassCount, DifferentialCount, interval_of
from hemascope.wording import fill

PER_VOLUME = "10*9/L"  # in UCUM
PER_100 = "/100{WBCs}"
INTERVALS = {
    "%": "95 % interval {low} – {high} %",
    PER_VOLUME: "95 % interval {low} – {high}·10⁹/L",
    PER_100: "95 % interval {low} – {high} per 100 white cells",
}
REVIEWED = "Image analysis of stained smear photographs (Hemascope)"
ReportStatus: TypeAlias = Literal["preliminary", "final", "amended"]
"""Preliminary until somebody signs; amended where what was signed has changed since."""


def describe_review(status: ReportStatus) -> str:
    """How the cells were named, and whether a person has answered for it."""
    return f"{REVIEWED}, {'not reviewed' if status == 'preliminary' else 'reviewed and signed'}"


@dataclass(frozen=True)
class Reported:
    """One quantity. `code` is None for a class that LOINC has none for.

    With `at_most`, no such cell was seen, and the value is the upper limit of the interval: zero of
    a few hundred cells is never zero percent. `counted` are the cells that the share is of, and
    `raw` is the share as counted where `value` is corrected for the model's confusion.
    """

    name: str
    code: LoincCode | None
    unit: str
    value: Interval
    at_most: bool
    counted: Proportion | None
    raw: Interval | None = None

    @property
    def number(self) -> float:
        """The value that is reported."""
        return self.value.high if self.at_most else self.value.value

    def describe(self) -> str:
        """Where the value is from, in words."""
        low, high = format_number(self.value.low), format_number(self.value.high)
        parts = [fill("not seen")] if self.at_most else []
        parts.append(fill(INTERVALS[self.unit], low=low, high=high))
        if self.counted is not None:
            n, successes = self.counted.n, self.counted.successes
            parts.append(fill("{successes} of {n} {n?cell|cells}", successes=successes, n=n))
        if self.raw is not None:
            raw = {
                name: format_number(getattr(self.raw, name)) for name in ("value", "low", "high")
            }
            text = "corrected for the model's confusion, as counted {value} ({low} – {high})"
            parts.append(fill(text, **raw))
        return "; ".join(parts)


def format_number(value: float) -> str:
    """A value with three digits, without an exponent."""
    return f"{value:.3g}" if 0.001 <= abs(value) < 1000 else f"{value:.4f}".rstrip("0").rstrip(".")


def report_quantities(count: DifferentialCount) -> Iterator[Reported]:
    """The shares, numbers in a volume, and erythroblasts per 100 white cells of a count."""
    for row in count.classes:
        yield from _report_class(count, row)
    per_100, found = count.trusted_erythroblasts, count.erythroblasts
    if per_100 is not None:
        raw = found.per_100 if per_100 != found.per_100 else None
        code = find_counted_class("erythroblast").percentage
        together = Proportion(found.count, found.count + count.white, None, None, None)
        yield Reported("erythroblasts", code, PER_100, per_100, not found.count, together, raw)


def _report_class(count: DifferentialCount, row: ClassCount) -> Iterator[Reported]:
    share, counted = count.trusted_share(row), find_counted_class(row.name)
    if share is None:
        return
    unseen = row.share.successes == 0
    raw = interval_of(row.share) if share == row.corrected else None
    yield Reported(
        row.title,
        counted.percentage,
        "%",
        _times(share, 100),
        unseen,
        row.share,
        None if raw is None else _times(raw, 100),
    )
    if row.absolute is not None:
        yield Reported(row.title, counted.absolute, PER_VOLUME, row.absolute, unseen, row.share)


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(factor * interval.value, factor * interval.low, factor * interval.high)
