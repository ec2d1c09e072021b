"""The review of a sample: galleries by class, changes, and the state that scripts ask for."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection
from starlette.responses import Response

from hemascope.records import Proportion
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.render import render
from hemascope.serve.store.labels import UNIDENTIFIED, labels_of
from hemascope.serve.store.proficiency import list_hidden
from hemascope.serve.store.recount import live_classes, machine_classes
from hemascope.serve.store.references import find_references
from hemascope.serve.store.review import (
    ReviewedCell,
    comment_cell,
    label_cells,
    list_cells,
    redo,
    undo,
)
from hemascope.serve.store.review_time import mark_opened
from hemascope.serve.store.samples import StoredSample, find_sample, list_images
from hemascope.serve.store.signing import list_signatures

KEYS = "0123456789qwertyuiop"


def find(call: Call, connection: Connection) -> StoredSample:
    """The sample that a request names. Raises ProblemError where there is none."""
    sample = find_sample(connection, call.request.path_params["id"])
    if sample is None:
        raise ProblemError(404, "there is no such sample")
    if sample.id in list_hidden(connection, call.user.id):
        raise ProblemError(403, "you are tested with this sample; finish the test first")
    return sample


def show_review(call: Call) -> Response:
    """The page with the galleries."""
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        cells = list_cells(connection, sample.id)
        fields = list_images(connection, sample.id)
        signatures = list_signatures(connection, sample.id)
    if may_change(call, sample) and not sample.opened:
        mark_opened(call.station.store, sample.id)
    return render(
        "review.html.j2",
        call.texts,
        user=call.user,
        sample=sample,
        labels=labels_with_keys(call),
        fields=fields,
        signatures=signatures,
        may_change=may_change(call, sample),
        needs_two=call.station.needs_two,
        state=state_of(call, sample, cells),
    )


def may_change(call: Call, sample: StoredSample) -> bool:
    """Whether the user may change the cells of a sample as it is."""
    return call.user.may("technologist") and sample.state in ("new", "in review")


def labels_with_keys(call: Call) -> list[tuple[str, str]]:
    """All labels with the key of each; unidentified comes first."""
    known = labels_of(call.station.counting.classifier.card)
    labels = [UNIDENTIFIED, *(name for name in known if name != UNIDENTIFIED)]
    return list(zip(labels, KEYS, strict=False))


def show_state(call: Call) -> Response:
    """The labels of all cells and the differential, as they are now."""
    return answer_state(call)


def show_references(call: Call) -> Response:
    """Cells that the laboratory has signed under a label, to compare with."""
    label = call.request.query_params.get("label", "")
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        hidden = {sample.id, *list_hidden(connection, call.user.id)}
        return as_json({"cells": find_references(connection, label, hidden)})


def change_labels(call: Call) -> Response:
    """Gives the selected cells a label, or takes it back."""
    label, chosen = read_change(call)
    label_cells(call.station.store, call.user, call.request.path_params["id"], chosen, label)
    return answer_state(call)


def read_change(call: Call) -> tuple[str, dict[int, int]]:
    """A label, and the versions of the cells that are given it. Raises ProblemError."""
    label, versions = call.text("label", 100), call.form.get("cells")
    card = call.station.counting.classifier.card
    if label and label not in labels_of(card):
        raise ProblemError(400, f"unknown label; known are: {', '.join(labels_of(card))}")
    if not isinstance(versions, dict) or not all(
        key.isdecimal() and len(key) < 19 and type(value) is int for key, value in versions.items()
    ):
        raise ProblemError(400, "cells must be an object of numbers and versions")
    return label, {int(key): value for key, value in versions.items()}


def take_back(call: Call) -> Response:
    """Undoes the user's last change."""
    undo(call.station.store, call.user, call.request.path_params["id"])
    return answer_state(call)


def make_again(call: Call) -> Response:
    """Makes the change again that was undone last."""
    redo(call.station.store, call.user, call.request.path_params["id"])
    return answer_state(call)


def change_comment(call: Call) -> Response:
    """Puts a comment on a cell."""
    cell, version = call.form.get("cell"), call.form.get("version")
    if type(cell) is not int or type(version) is not int:
        raise ProblemError(400, "cell and version must be numbers")
    sample_id = call.request.path_params["id"]
    comment_cell(call.station.store, call.user, sample_id, cell, version, call.text("comment"))
    return answer_state(call)


def answer_state(call: Call, **more: object) -> Response:
    """The state as scripts read it, with what else the answer says."""
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        state = state_of(call, sample, list_cells(connection, sample.id))
    return as_json(state | more)


def as_json(value: object) -> Response:
    """An answer for scripts, which no cache keeps."""
    content = msgspec.json.encode(value)
    return Response(content, headers={"Cache-Control": "no-store"}, media_type="application/json")


def state_of(call: Call, sample: StoredSample, cells: list[ReviewedCell]) -> dict[str, Any]:
    """The state of a sample: its cells by their numbers, and the differential."""
    texts, labels = call.texts, {"": ""}
    for label in {cell.machine for cell in cells} | {cell.label for cell in cells}:
        labels[label] = label and texts.label(label)
    return {
        "changes": sample.changes,
        "state": sample.shown_state,
        "shown": texts.known("state", sample.shown_state),
        "cells": [
            {
                "id": cell.id,
                "version": cell.version,
                "field": cell.field,
                "group": cell.counts_as,
                "machine": labels[cell.machine],
                "probability": cell.probability,
                "reason": texts.known("reason", cell.reason),
                "label": labels[cell.label],
                "by": cell.labelled_by,
                "added": cell.added_by,
                "comment": cell.comment,
            }
            for cell in cells
        ],
        "rows": _rows(call, cells),
    }


def _rows(call: Call, cells: list[ReviewedCell]) -> list[dict[str, str]]:
    """The differential now, with exact intervals, and by the machine alone."""
    card = call.station.counting.classifier.card
    return [
        {
            "title": call.texts.texts.get(f"label.{now.name}", now.title),
            "cells": str(now.share.successes),
            "share": _percent(now.share),
            "interval": _interval(now.share),
            "machine": _percent(before.share),
            "difference": _difference(now.share, before.share),
        }
        for now, before in zip(live_classes(cells, card), machine_classes(cells, card), strict=True)
    ]


def _percent(share: Proportion) -> str:
    return "–" if share.value is None else f"{100 * share.value:.1f} %"


def _interval(share: Proportion) -> str:
    if share.low is None or share.high is None:
        return "–"
    return f"{100 * share.low:.1f} – {100 * share.high:.1f}"


def _difference(now: Proportion, before: Proportion) -> str:
    if now.value is None or before.value is None:
        return "–"
    return f"{100 * (now.value - before.value):+.1f}"
