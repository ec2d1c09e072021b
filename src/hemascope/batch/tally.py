"""Tally: how many images were classified, how many of each class, how many are for review and why.

It is counted from a table's rows, those just written as those that an earlier run has left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Metric
from hemascope.predictions import SIMILAR, UNKNOWN
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION

# What is counted of a row: its label, whether it is for review, the reasons, and the laboratory.
# There are few.
Outcome: TypeAlias = tuple[str | None, bool | None, str | None, str | None]
OUTCOME_COLUMNS = ("label", "review", "review_reasons", "laboratory")
KNOWN_SHARE = 0.85  # of a known laboratory's images 98 % are known, of another's 15 to 65 %


@dataclass(frozen=True)
class Tally:
    """How many images were classified, how many of each class, and how many could not be read.

    `to_review` says by class how many of them somebody should look at, and `reasons` how many by
    reason, of which an image may have several. Both are None of a model that is not calibrated,
    which names none for review. `laboratories` counts the images by the laboratory that they are
    like; it is None of a bundle that knows no laboratories. `home` is the one that the bundle's own
    network is for. `expected` are the card's accuracies on laboratories that were left out of
    training. `takes_scale` says whether the model can be told the width of a pixel.
    """

    classified: int
    unreadable: int
    per_class: dict[str, int]
    to_review: dict[str, int] | None
    reasons: dict[str, int] | None
    laboratories: dict[str, int] | None = None
    home: str = ""
    expected: tuple[Metric, ...] = ()
    takes_scale: bool = False

    def __str__(self) -> str:
        """Such as "9 images classified, 1 could not be read, 3 to be reviewed (2 blurred, …)"."""
        counts = f"{self.classified} images classified, {self.unreadable} could not be read"
        return f"{counts}, {self.describe_review()}"

    @property
    def sure(self) -> dict[str, int]:
        """How many of each class nobody needs to look at; all of a model that is not calibrated."""
        to_review = self.to_review or {}
        return {name: count - to_review.get(name, 0) for name, count in self.per_class.items()}

    def describe_review(self) -> str:
        """How many are to be reviewed, and why."""
        if self.to_review is None or self.reasons is None:
            return "none named for review, as the model is not calibrated"
        why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"{sum(self.to_review.values())} to be reviewed" + (f" ({why})" if why else "")

    def describe_difference(self, um_per_pixel: float | None = None, style: str = "") -> str:
        """What to do where most images are unlike the training images; empty where most are not.

        `um_per_pixel` is the scale that the user gave, and `style` says how the images differ.
        """
        if self.laboratories is None:
            unlike = (self.reasons or {}).get(OUT_OF_DISTRIBUTION, 0)
            if 2 * unlike <= self.classified:
                return ""
            what = f"{unlike} of {self.classified} cells differ from the training images"
        elif self.is_known_laboratory:
            return ""
        else:
            counts = "; ".join(f"{count} {name}" for name, count in self.laboratories.items())
            differing = f"; they are {style} than those of {self.home}" if style else ""
            what = (
                f"these images are not of a laboratory that the model knows ({counts}){differing}"
            )
        return (
            f"{what}, so that many predictions may be wrong.{self._describe_expected()} Check the "
            f"scale first ({self._describe_scale(um_per_pixel)}), then stain, camera and cropping. "
            "'hemascope evaluate' measures the model on your labelled cells; 'hemascope adapt' "
            "fits it to ten cells per class."
        )

    @property
    def is_known_laboratory(self) -> bool:
        """Whether nearly all images are of laboratories that the model was trained on."""
        counts = self.laboratories or {}
        known = sum(
            count for name, count in counts.items() if not name.startswith((SIMILAR, UNKNOWN))
        )
        return known >= KNOWN_SHARE * sum(counts.values())

    def _describe_expected(self) -> str:
        """What share is named rightly in a laboratory that is not known."""
        shares = [
            f"{100 * metric.result.value:.0f} % ({metric.measured_on})"
            for metric in self.expected
            if metric.result.value is not None
        ]
        if not shares:
            return ""
        return f" Where a laboratory was left out of training, accuracy was {', '.join(shares)}."

    def _describe_scale(self, um_per_pixel: float | None) -> str:
        if not self.takes_scale:
            return "the cells must be as large in the image as in training"
        if um_per_pixel is None:
            return "give the width of a pixel with --um-per-pixel"
        return f"is --um-per-pixel {um_per_pixel:g} right?"


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """What is counted of a table's row."""
    return row["label"], row["review"], row["review_reasons"], row["laboratory"]


def tally_of(outcomes: Counter[Outcome], bundle: Bundle) -> Tally:
    """The Tally of a bundle's counted outcomes, with its classes in order."""
    card, fallback = bundle.card, bundle.fallback
    labels, to_review, reasons = Counter[str | None](), Counter[str](), Counter[str]()
    laboratories = Counter[str]()
    for (label, review, why, laboratory), count in outcomes.items():
        labels[label] += count
        if label is not None and review:
            to_review[label] += count
            reasons.update(dict.fromkeys((why or "").split("|"), count))
        if laboratory is not None:
            laboratories[laboratory] += count
    unreadable, names, model = labels[None], card.classes.names, card.uncertainty
    return Tally(
        labels.total() - unreadable,
        unreadable,
        {name: labels[name] for name in names},
        None if model is None else {name: to_review[name] for name in names},
        None if model is None else dict(reasons.most_common()),
        laboratories=dict(laboratories.most_common()) if model and model.laboratories else None,
        home=model.laboratories.names[0] if model and model.laboratories else "",
        expected=() if fallback is None else fallback.card.metrics,
        takes_scale=card.input.microns is not None,
    )
