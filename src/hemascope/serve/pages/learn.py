"""The learn page: bundles from signed labels, compared, and switched by an administrator."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.render import render
from hemascope.serve.store.bundles import choose_bundle, find_bundle, list_bundles

LONGEST_NAME = 60


def show_learn(call: Call) -> Response:
    """The bundles that were made, and the form that makes another."""
    with call.station.store.reading() as connection:
        found = list_bundles(connection)
    return render(
        "learn.html.j2",
        call.texts,
        user=call.user,
        bundles=found,
        present=call.station.counting.classifier.card,
        signed=len(call.station.learning.list_signed()),
    )


def start(call: Call) -> Response:
    """Begins a bundle."""
    name, left_out = call.text("name", LONGEST_NAME).strip(), call.text("left_out", 6)
    if not name or not name.isprintable() or not left_out.isdecimal():
        raise ProblemError(400, "give a name, and how many samples are left out")
    call.station.learning.start(call.user, name, int(left_out))
    return RedirectResponse("/learn", 303)


def compare(call: Call) -> Response:
    """Compares a bundle anew."""
    bundle_id = call.request.path_params["id"]
    with call.station.store.reading() as connection:
        found = find_bundle(connection, bundle_id)
    if found is None or found.state != "ready":
        raise ProblemError(404, "there is no such bundle, or it is not ready")
    call.station.learning.compare(bundle_id)
    return RedirectResponse("/learn", 303)


def switch(call: Call) -> Response:
    """Makes a bundle the one that the station starts with."""
    choose_bundle(call.station.store, call.user, call.text("bundle", 40))
    return RedirectResponse("/learn", 303)
