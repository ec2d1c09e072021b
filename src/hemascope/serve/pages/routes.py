"""make_pages: the review pages of a station, each with the role that it needs."""

from __future__ import annotations

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
)
from hemascope.serve.pages.access import Handler, changing, reading
from hemascope.serve.pages.station import Station
from hemascope.serve.store.people import Role


def make_pages(station: Station, limits: Settings) -> list[BaseRoute]:
    """The routes. Looking needs a viewer, changing a technologist, and amending a reviewer."""

    def shown(path: str, handler: Handler, role: Role = "viewer") -> Route:
        return Route(path, reading(station, handler, role), methods=["GET"])

    def changed(path: str, handler: Handler, role: Role = "technologist") -> Route:
        return Route(path, changing(station, handler, role), methods=["POST"])

    sample = "/samples/{id}"
    return [
        Mount("/static", StaticFiles(directory=reports.STATIC), name="static"),
        Route("/login", people.make_show_log_in(station), methods=["GET"]),
        Route("/login", people.make_log_in(station), methods=["POST"]),
        changed("/logout", people.end_session, "viewer"),
        shown("/", samples.show_samples),
        Route("/samples/upload", samples.make_upload(station, limits), methods=["POST"]),
        changed("/samples/import", samples.import_folder),
        changed(f"{sample}/discard", samples.discard),
        shown(sample, galleries.show_review),
        shown(f"{sample}/state", galleries.show_state),
        shown(f"{sample}/references", galleries.show_references),
        changed(f"{sample}/label", galleries.change_labels),
        changed(f"{sample}/undo", galleries.take_back),
        changed(f"{sample}/redo", galleries.make_again),
        changed(f"{sample}/comment", galleries.change_comment),
        changed(f"{sample}/sign", reports.sign_sample),
        changed(f"{sample}/amend", reports.amend_sample, "reviewer"),
        shown(f"{sample}/report", reports.show_report),
        shown(f"{sample}/{reports.PDF}", reports.print_report),
        shown(f"{sample}/fields/{{number:int}}", fields.show_field_page),
        shown(f"{sample}/fields/{{number:int}}/image.png", images.show_field),
        changed(f"{sample}/fields/{{number:int}}/add", fields.add_missed),
        shown(f"{sample}/{{name}}", reports.write_report),
        shown("/quality", quality.show_quality),
        shown("/quality/drift", quality.show_drift),
        shown("/learn", learn.show_learn, "reviewer"),
        changed("/learn", learn.start, "reviewer"),
        changed("/learn/switch", learn.switch, "administrator"),
        changed("/learn/{id}/compare", learn.compare, "reviewer"),
        changed("/tests", proficiency.give, "reviewer"),
        shown("/tests/{id}", proficiency.show_test),
        shown("/tests/{id}/state", proficiency.show_state),
        changed("/tests/{id}/label", proficiency.change_labels, "viewer"),
        changed("/tests/{id}/finish", proficiency.finish, "viewer"),
        shown("/cells/{cell:int}/small.png", images.show_thumbnail),
        shown("/cells/{cell:int}/large.png", images.show_large),
        shown("/cells/{cell:int}/map.png", images.show_map),
        shown("/cells/{cell:int}/probabilities", images.show_probabilities),
    ]
