"""Tally: how many images were classified, how many of each class, how many are for review and why.

It is counted from a table's rows, those just written as those that an earlier run has left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hemascope.bundle.card import Card
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION

# What is counted of a row: its label, whether it is for review, and the reasons. There are few.
Outcome: TypeAlias = tuple[str | None, bool | None, str | None]
OUTCOME_COLUMNS = ("label", "review", "review_reasons")


@dataclass(frozen=True)
class Tally:
    """How many images were classified, how many of each class, and how many could not be read.

    `to_review` says by class how many of them somebody should look at, and `reasons` how many by
    reason, of which an image may have several. Both are None of a model that is not calibrated,
    which names none for review. `takes_scale` says whether the model can be told the width of a
    pixel.
    """

    classified: int
    unreadable: int
    per_class: dict[str, int]
    to_review: dict[str, int] | None
    reasons: dict[str, int] | None
    takes_scale: bool = False

    def __str__(self) -> str:
        """Such as "9 images classified, 1 could not be read, 3 to be reviewed (2 blurred, …)"."""
        counts = f"{self.classified} images classified, {self.unreadable} could not be read"
        return f"{counts}, {self.describe_review()}"

    def describe_review(self) -> str:
        """How many are to be reviewed, and why."""
        if self.to_review is None or self.reasons is None:
            return "none named for review, as the model is not calibrated"
        why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"{sum(self.to_review.values())} to be reviewed" + (f" ({why})" if why else "")

    def describe_difference(self, um_per_pixel: float | None = None) -> str:
        """What to do where most cells are unlike the training cells; empty where most are not.

        `um_per_pixel` is the scale that the user gave.
        """
        unlike = (self.reasons or {}).get(OUT_OF_DISTRIBUTION, 0)
        if 2 * unlike <= self.classified:
            return ""
        if not self.takes_scale:
            scale = "the cells must be as large in the image as in training"
        elif um_per_pixel is None:
            scale = "give the width of a pixel with --um-per-pixel"
        else:
            scale = f"is --um-per-pixel {um_per_pixel:g} right?"
        return (
            f"{unlike} of {self.classified} cells differ from the training images, so that many "
            f"predictions may be wrong. Check the scale first ({scale}), then stain, camera and "
            "cropping. 'hemascope evaluate' measures the model on your labelled cells; "
            "'hemascope adapt' fits it to ten cells per class."
        )


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """What is counted of a table's row."""
    return row["label"], row["review"], row["review_reasons"]


def tally_of(outcomes: Counter[Outcome], card: Card) -> Tally:
    """The Tally of counted outcomes of a model, with its classes in order."""
    labels, to_review, reasons = Counter[str | None](), Counter[str](), Counter[str]()
    for (label, review, why), count in outcomes.items():
        labels[label] += count
        if label is not None and review:
            to_review[label] += count
            reasons.update(dict.fromkeys((why or "").split("|"), count))
    unreadable, names = labels[None], card.classes.names
    is_calibrated = card.uncertainty is not None
    return Tally(
        labels.total() - unreadable,
        unreadable,
        {name: labels[name] for name in names},
        {name: to_review[name] for name in names} if is_calibrated else None,
        dict(reasons.most_common()) if is_calibrated else None,
        takes_scale=card.input.microns is not None,
    )
