"""What Hemascope hands back: frozen dataclasses that become JSON and come back from it."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

RESEARCH_USE_ONLY = "For research use only. Not for use in diagnostic procedures."


@dataclass(frozen=True)
class Prediction:
    """One image's answer.

    `status` is "ok", or what was wrong with the image; then `label` is None and the
    probabilities are empty. The probabilities are calibrated where the model is.

    Of a model that `hemascope calibrate` has seen, `prediction_set` holds the right class for
    95 % of cells like those it was calibrated on, and can be empty; `class_conditional_set` does
    so for 95 % of each class. `ood_score` is above 1 for a picture unlike the training cells.
    `review` says that somebody should look, and `review_reasons` why. Of other models, and for
    an image that could not be read, all of these are None or empty.

    `disagreement` is that of an ensemble's members, or of the views of test-time augmentation,
    in nats. `class_map` is (C,h,w) float32, one map a class, whose mean over
    the image is the class's logit up to the bias; it is kept only where it was asked for.
    """

    path: str | None
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    status: str = "ok"
    prediction_set: tuple[str, ...] | None = None
    class_conditional_set: tuple[str, ...] | None = None
    ood_score: float | None = None
    in_distribution: bool | None = None
    review: bool | None = None
    review_reasons: tuple[str, ...] = ()
    disagreement: float | None = None
    class_map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def two_likeliest(self) -> list[str]:
        """The named class and the runner-up; none of an image that could not be read."""
        chances = self.probabilities
        return sorted(chances, key=lambda name: -chances[name])[:2]


@dataclass(frozen=True)
class Proportion:
    """`successes` of `n`, with its 95 % Wilson interval. The value is None where n is 0."""

    successes: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate:
    """A figure measured on n images, with its 95 % bootstrap interval; None where undefined."""

    value: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassScores:
    """One class's figures. `auroc` is one against the rest."""

    label: str
    precision: Proportion
    recall: Proportion
    f1: Estimate
    auroc: Estimate


@dataclass(frozen=True)
class SubtypeScores:
    """Recall among the images of one subtype, such as the band neutrophils."""

    label: str
    subtype: str
    recall: Proportion


@dataclass(frozen=True)
class Mistake:
    """An image whose named class is not its label."""

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of like confidence: their mean confidence, and how many of them were right."""

    confidence: float
    accuracy: Proportion


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say; the bins hold equally many images."""

    expected_calibration_error: Estimate
    brier: Estimate
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class SetFigures:
    """How often prediction sets held the label, over all and by class, and how large they were."""

    coverage: Proportion
    per_class: tuple[Proportion, ...]
    mean_size: Estimate
    empty: Proportion


@dataclass(frozen=True)
class TrustFigures:
    """How far a calibrated model's own judgement of its answers held.

    `uncalibrated` is of the probabilities as the network gave them. `accuracy_of_rest` is of the
    images that were not sent to review. `risk_coverage` are points (share of the images that is
    answered, most confident first; share of mistakes among them).
    """

    calibrated_on: str
    uncalibrated: Calibration
    calibrated: Calibration
    sets: SetFigures
    class_conditional_sets: SetFigures
    reviewed: Proportion
    review_reasons: dict[str, Proportion]
    accuracy_of_rest: Proportion
    in_distribution: Proportion
    accuracy_in_distribution: Proportion
    risk_coverage: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ChoiceScores:
    """How a bundle did on cells of the shared classes, when it chose among `classes`.

    `confusion` counts labels (rows, the shared classes) against named classes (columns).
    """

    classes: tuple[str, ...]
    accuracy: Proportion
    balanced_accuracy: Estimate
    mean_confidence: Estimate
    expected_calibration_error: Estimate
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Quartiles:
    """A statistic of n images: their median, between the lower and the upper quartile."""

    low: float
    median: float
    high: float
    n: int


@dataclass(frozen=True)
class Appearance:
    """One image statistic of a site, and of the reference laboratory's images if there are any.

    `effect` is the difference of the medians in units of the reference's interquartile range
    (of at least one grey level).
    """

    name: str
    unit: str
    site: Quartiles
    reference: Quartiles | None = None
    effect: float | None = None


@dataclass(frozen=True)
class SiteScores:
    """How a bundle did at a site, whose cells may be of some of its classes only.

    `shared` are the bundle's classes with enough cells there, and `n` counts the cells of these;
    `cells` counts all, by label. `um_per_pixel` is the median over the cells. `appearance` is
    compared with that of the `reference`, if one is named.
    """

    title: str
    address: str
    scale: str
    um_per_pixel: float
    cells: dict[str, int]
    shared: tuple[str, ...]
    n: int
    among_all: ChoiceScores
    among_shared: ChoiceScores
    appearance: tuple[Appearance, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Evaluation:
    """How a bundle did on labelled images; `site` where these are of another laboratory.

    `trust` is there for a calibrated one. `confusion` is (C,C) counts, row = label, column =
    predicted. `mistakes` come most confident first. `unreadable` holds "path: reason" for the
    images left out of every figure.
    """

    name: str
    class_names: tuple[str, ...]
    n: int
    accuracy: Proportion
    balanced_accuracy: Estimate
    macro_f1: Estimate
    macro_auroc: Estimate
    expected_calibration_error: Estimate
    per_class: tuple[ClassScores, ...]
    per_subtype: tuple[SubtypeScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[str, ...]
    provenance: dict[str, Any]
    trust: TrustFigures | None = None
    site: SiteScores | None = None


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong, and what a network that never saw it says."""

    path: str
    label: str
    suggested: str
    probability_of_label: float
    probability_of_suggested: float


@dataclass(frozen=True)
class Audit:
    """Suspects among n labelled images, the likeliest first; `agreed` have their label named.

    `pairs` counts the suspects by "label → suggested". `unreadable` holds "path: reason".
    """

    name: str
    n: int
    agreed: int
    suspects: tuple[Suspect, ...]
    pairs: dict[str, int]
    unreadable: tuple[str, ...]
    provenance: dict[str, str]


def to_json(value: object) -> bytes:
    """A dataclass as indented UTF-8 JSON. Floats keep every digit, those of arrays six or seven.

    An array is written as its shape and its single-precision values in base 64.
    """
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encoded), indent=2) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The dataclass that `to_json` wrote. Raises ValueError that says what does not fit."""
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_decoded)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from None


def _encoded(value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value, dtype="<f4").tobytes()
        return {"shape": value.shape, "float32": base64.b64encode(content).decode()}
    raise NotImplementedError(f"{type(value).__name__} has no place in a result")


def _decoded(kind: Any, value: Any) -> Any:
    if (get_origin(kind) or kind) is not np.ndarray:
        raise NotImplementedError(f"{kind} has no place in a result")
    try:
        content = np.frombuffer(base64.b64decode(value["float32"], validate=True), "<f4")
        return content.astype(np.float64).reshape(value["shape"])
    except (KeyError, TypeError, ValueError):
        raise msgspec.ValidationError("an array needs a shape and that many values") from None


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file, text in UTF-8, that appears whole or not at all; see `written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on success and removed on any failure.

    So that a full disk, an error or Ctrl-C never leaves half a file, nor harms the one before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it met
        raise
