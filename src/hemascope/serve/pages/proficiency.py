"""Proficiency tests: given by a reviewer, taken without labels, and scored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from hemascope.metrics.intervals import wilson
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.galleries import as_json, labels_with_keys, read_change
from hemascope.serve.pages.render import render
from hemascope.serve.store.labels import UNIDENTIFIED
from hemascope.serve.store.proficiency import (
    ProficiencyTest,
    find_test,
    finish_test,
    give_test,
    label_in_test,
)


def give(call: Call) -> Response:
    """Gives somebody a signed sample."""
    give_test(call.station.store, call.user, call.text("sample", 40), call.text("user", 100))
    return RedirectResponse("/quality", 303)


def show_test(call: Call) -> Response:
    """The cells to name; or, of a finished test, its score."""
    with call.station.store.reading() as connection:
        test = _find(call, connection)
    if test.finished:
        classes = [
            (found.label, wilson(found.both, found.second))
            for found in test.score.classes
            if found.second
        ]
        wrong = [answer for answer in test.answers if answer[1] != answer[2]]
        values: dict[str, Any] = {"score": test.score, "classes": classes, "wrong": wrong}
        return render("scored.html.j2", call.texts, user=call.user, test=test, **values)
    return render(
        "test.html.j2",
        call.texts,
        user=call.user,
        test=test,
        labels=labels_with_keys(call),
        state=_state(test),
    )


def show_state(call: Call) -> Response:
    """The labels that the user has given."""
    with call.station.store.reading() as connection:
        return as_json(_state(_find(call, connection)))


def change_labels(call: Call) -> Response:
    """Names cells of the test."""
    label, chosen = read_change(call)
    test_id = call.request.path_params["id"]
    label_in_test(call.station.store, call.user, test_id, chosen, label or UNIDENTIFIED)
    return show_state(call)


def finish(call: Call) -> Response:
    """Ends the test, and shows the score."""
    test_id = call.request.path_params["id"]
    finish_test(call.station.store, call.user, test_id)
    return RedirectResponse(f"/tests/{test_id}", 303)


def _find(call: Call, connection: Connection) -> ProficiencyTest:
    """The test, for who takes it; and once it is finished, for reviewers."""
    test = find_test(connection, call.request.path_params["id"])
    is_own = test is not None and test.user_id == call.user.id
    if test is None or not (is_own or (test.finished and call.user.may("reviewer"))):
        raise ProblemError(404, "there is no such test")
    return test


def _state(test: ProficiencyTest) -> dict[str, Any]:
    """The test as the scripts of the galleries read a sample."""
    cells = [
        {"id": cell, "version": 1, "group": given, "label": "", "comment": ""}
        for cell, given, _ in test.answers
    ]
    return {"changes": test.changes, "state": "", "cells": cells, "rows": []}
