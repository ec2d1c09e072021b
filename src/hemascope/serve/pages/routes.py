"""make_pages: the review pages of a station, each with the role that it needs."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from hemascope.serve.app.settings import Settings
from hemascope.serve.pages import (
    fields,
    galleries,
    images,
    learn,
    people,
    proficiency,
    quality,
    reports,
    samples,
    users,
)
from hemascope.serve.pages.access import Endpoint, Handler, changing, reading
from hemascope.serve.pages.refusals import speaking
from hemascope.serve.pages.station import Station
from hemascope.serve.store.people import Role


def make_pages(station: Station, limits: Settings) -> list[BaseRoute]:
    """The routes. Looking needs a viewer, changing a technologist, and amending a reviewer.

    Users are an administrator's.
    """
    return [
        Mount("/static", StaticFiles(directory=reports.STATIC), name="static"),
        *(
            Route(path, speaking(station, endpoint), methods=[method])
            for path, method, endpoint in _endpoints(station, limits)
        ),
    ]


def _endpoints(station: Station, limits: Settings) -> Iterator[tuple[str, str, Endpoint]]:
    yield "/login", "GET", people.make_show_log_in(station)
    yield "/login", "POST", people.make_log_in(station)
    yield "/samples/upload", "POST", samples.make_upload(station, limits)
    for path, handler, role in SHOWN:
        yield path, "GET", reading(station, handler, role)
    for path, handler, role in CHANGED:
        yield path, "POST", changing(station, handler, role)


SAMPLE, FIELD = "/samples/{id}", "/samples/{id}/fields/{number:int}"
USER = "/users/{user:int}"
SHOWN: tuple[tuple[str, Handler, Role], ...] = (
    ("/", samples.show_samples, "viewer"),
    (SAMPLE, galleries.show_review, "viewer"),
    (f"{SAMPLE}/state", galleries.show_state, "viewer"),
    (f"{SAMPLE}/references", galleries.show_references, "viewer"),
    (f"{SAMPLE}/report", reports.show_report, "viewer"),
    (f"{SAMPLE}/{reports.PDF}", reports.print_report, "viewer"),
    (FIELD, fields.show_field_page, "viewer"),
    (f"{FIELD}/image.png", images.show_field, "viewer"),
    (f"{SAMPLE}/{{name}}", reports.write_report, "viewer"),
    ("/quality", quality.show_quality, "viewer"),
    ("/quality/drift", quality.show_drift, "viewer"),
    ("/learn", learn.show_learn, "reviewer"),
    ("/users", users.show_users, "administrator"),
    ("/tests/{id}", proficiency.show_test, "viewer"),
    ("/tests/{id}/state", proficiency.show_state, "viewer"),
    ("/cells/{cell:int}/small.png", images.show_thumbnail, "viewer"),
    ("/cells/{cell:int}/large.png", images.show_large, "viewer"),
    ("/cells/{cell:int}/map.png", images.show_map, "viewer"),
    ("/cells/{cell:int}/probabilities", images.show_probabilities, "viewer"),
)
CHANGED: tuple[tuple[str, Handler, Role], ...] = (
    ("/logout", people.end_session, "viewer"),
    ("/samples/import", samples.import_folder, "technologist"),
    (f"{SAMPLE}/discard", samples.discard, "technologist"),
    (f"{SAMPLE}/label", galleries.change_labels, "technologist"),
    (f"{SAMPLE}/undo", galleries.take_back, "technologist"),
    (f"{SAMPLE}/redo", galleries.make_again, "technologist"),
    (f"{SAMPLE}/comment", galleries.change_comment, "technologist"),
    (f"{FIELD}/add", fields.add_missed, "technologist"),
    (f"{SAMPLE}/sign", reports.sign_sample, "technologist"),
    (f"{SAMPLE}/amend", reports.amend_sample, "reviewer"),
    ("/tests", proficiency.give, "reviewer"),
    ("/tests/{id}/label", proficiency.change_labels, "viewer"),
    ("/tests/{id}/finish", proficiency.finish, "viewer"),
    ("/learn", learn.start, "reviewer"),
    ("/learn/switch", learn.switch, "administrator"),
    ("/learn/{id}/compare", learn.compare, "reviewer"),
    ("/users", users.add, "administrator"),
    (f"{USER}/role", users.change_role, "administrator"),
    (f"{USER}/state", users.change_state, "administrator"),
    (f"{USER}/password", users.change_password, "administrator"),
    (f"{USER}/unlock", users.unlock, "administrator"),
)
