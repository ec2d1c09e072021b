"""The count of a sample by the labels of people, where they gave any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hemascope.bundle.card import Card
from hemascope.classes import find_counted_class
from hemascope.predictions import Prediction, Uncertainty
from hemascope.serve.store import audit
from hemascope.serve.store.labels import OUTSIDE, UNIDENTIFIED, effective
from hemascope.serve.store.review import ReviewedCell
from hemascope.smear.counted import ClassCount, DifferentialCount, NamedCell, NamedField
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.method import UNSIGNED
from hemascope.smear.shares import count_classes, nucleated_of
from hemascope.wording import fill

ACKNOWLEDGED = "left without a name by a person"
REVIEWED_SHARES = "a person has reviewed the cells"


def recount(
    sample: str,
    fields: Sequence[NamedField],
    cells: Iterable[ReviewedCell],
    card: Card,
    wbc: float | None,
    options: CountOptions,
) -> DifferentialCount:
    """The differential count of fields by their reviewed labels.

    Cells that nobody labelled count as the machine names them. Where a person labelled any, shares
    are those as counted: the model's confusion is known of its own labels only. A cell keeps the
    machine's subtype as long as no person gave it another class. Raises SampleError.
    """
    found = list(cells)
    by_place = {(cell.field, cell.number): cell for cell in found}
    renamed = [_rename(field, number, by_place) for number, field in enumerate(fields)]
    if not any(cell.label or cell.added_by for cell in found):
        return count_sample(sample, renamed, card, wbc, options)
    count = count_sample(sample, renamed, replace(card, confusion=None), wbc, options)
    said = " ".join([describe_review(found), *_describe_subtypes(count, card), UNSIGNED])
    method = count.method.replace(UNSIGNED, said)
    return replace(count, trusted_because=REVIEWED_SHARES, method=method)


def _describe_subtypes(count: DifferentialCount, card: Card) -> list[str]:
    """Whose subtypes a reviewed count has, and how many cells have none."""
    layers = () if card.morphology is None else card.morphology.subtypes
    if not layers:
        return []
    seen = {row.name: row.share.successes for row in count.classes}
    without = sum(
        seen.get(layer.name, 0) - sum(seen.get(name, 0) for name in layer.values)
        for layer in layers
    )
    text = (
        "Subtypes are the model's, of cells whose class no person changed; {n} {n?cell|cells} of "
        "classes with subtypes {n?has|have} none."
    )
    return [fill(text, n=without)]


def describe_review(cells: Sequence[ReviewedCell]) -> str:
    """Who reviewed cells and when, and how much they changed."""
    by_person = [cell for cell in cells if cell.label]
    names = {cell.labelled_by for cell in by_person} | {cell.added_by for cell in cells}
    moments = sorted(cell.labelled_at for cell in by_person if cell.labelled_at)
    changed = sum(
        cell.label not in ("", effective(cell.machine, cell.reason, "")) for cell in cells
    )
    added = sum(bool(cell.added_by) for cell in cells)
    name = ", ".join(sorted(names - {""}))
    sentences = [fill("Reviewed by {name}.", name=name)]
    if moments:
        when = audit.shown(moments[-1])
        sentences = [fill("Reviewed by {name} until {when}.", name=name, when=when)]
    text = "Of {n} {n?cell|cells}, people gave {changed} another label than the model."
    sentences.append(fill(text, n=len(cells), changed=changed))
    if added:
        text = "They added {n} {n?cell|cells} that the model had missed."
        sentences.append(fill(text, n=added))
    return " ".join(sentences)


def live_classes(cells: Iterable[ReviewedCell], card: Card) -> tuple[ClassCount, ...]:
    """The rows of the differential as the labels are now, with exact intervals."""
    return _count_labels((cell.counts_as for cell in cells), card)


def machine_classes(cells: Iterable[ReviewedCell], card: Card) -> tuple[ClassCount, ...]:
    """The rows as the machine alone counts."""
    return _count_labels((effective(cell.machine, cell.reason, "") for cell in cells), card)


def _count_labels(labels: Iterable[str], card: Card) -> tuple[ClassCount, ...]:
    return count_classes(nucleated_of(Counter(labels), replace(card, confusion=None)))


def _rename(
    field: NamedField, number: int, by_place: Mapping[tuple[int, int], ReviewedCell]
) -> NamedField:
    cells = []
    for index, cell in enumerate(field.cells):
        reviewed = by_place.get((number, index))
        if reviewed is None or not reviewed.label:
            cells.append(cell)
        elif reviewed.label not in OUTSIDE:
            cells.append(_label(cell, reviewed.label))
    return replace(field, cells=tuple(cells))


def _label(cell: NamedCell, label: str) -> NamedCell:
    """A cell with a person's label, which no doubt of the machine's keeps from the count."""
    if find_counted_class(label).role == "platelet":
        return NamedCell(replace(cell.located, kind="platelet"))
    unclear = label == UNIDENTIFIED
    reasons = (ACKNOWLEDGED,) if unclear else ()
    uncertainty = Uncertainty((), (), 0.0, True, unclear, reasons)
    made = cell.prediction
    name = made.image_id if made else None
    subtype = made.subtype if made and made.label == label else None
    return NamedCell(
        replace(cell.located, at_border=False),
        Prediction(name, label, None, {}, uncertainty=uncertainty, subtype=subtype),
    )
