"""The list of samples, and their import: from a folder, or as an upload."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hemascope.batch.inputs import find_inputs
from hemascope.serve.app.archives import shown_name, unpack
from hemascope.serve.app.bodies import kind_of, spool_body
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.app.queries import read_name, read_total, read_width
from hemascope.serve.app.settings import Settings
from hemascope.serve.pages.access import Call, Endpoint, check_change
from hemascope.serve.pages.render import render
from hemascope.serve.pages.station import Station
from hemascope.serve.store.people import User, is_csrf
from hemascope.serve.store.proficiency import list_tests
from hemascope.serve.store.samples import (
    NewField,
    add_sample,
    discard_failed,
    find_sample,
    list_samples,
)

LONGEST_SEARCH = 200


def show_samples(call: Call) -> Response:
    """The samples, with their state, and what can be imported."""
    search = call.request.query_params.get("search", "")[:LONGEST_SEARCH]
    with call.station.store.reading() as connection:
        found = list_samples(connection, search)
        tests = list_tests(connection, call.user.id)
    return render(
        "samples.html.j2",
        call.texts,
        tests=[test for test in tests if not test.finished],
        user=call.user,
        samples=found,
        progress=dict(call.station.progress),
        search=search,
        folders=list_folders(call.station) if call.user.may("technologist") else [],
    )


def list_folders(station: Station) -> list[tuple[str, str]]:
    """(key, name) of each folder that a sample can be imported from: those in allowed ones."""
    found = []
    for number, root in enumerate(station.folders):
        if root.is_dir():
            inside = sorted(path.name for path in root.iterdir() if path.is_dir())
            found += [(f"{number}/{name}", f"{root.name}/{name}") for name in inside]
    return found


def import_folder(call: Call) -> Response:
    """Imports a folder of the list; no other one can be named."""
    key = call.text("folder")
    names = dict(list_folders(call.station))
    if key not in names:
        raise ProblemError(404, "there is no such folder among those that are allowed")
    number, _, name = key.partition("/")
    folder = (call.station.folders[int(number)] / name).resolve()
    if call.station.folders[int(number)].resolve() not in folder.parents:
        raise ProblemError(404, "the folder leads out of those that are allowed")
    paths = [Path(path) for path in find_inputs([str(folder)]).images]
    given = (NewField(shown_name(path.name), path.read_bytes()) for path in paths)
    sample_id = add_sample(call.station.store, call.user, name, given)
    call.station.locate(sample_id)
    return RedirectResponse("/", 303)


def make_upload(station: Station, limits: Settings) -> Endpoint:
    """The endpoint that takes a field, or a zip of fields, as the raw body."""

    async def answer(request: Request) -> Response:
        user = await check_change(station, request, "technologist")
        if not is_csrf(user, request.headers.get("x-csrf-token", "")):
            raise ProblemError(403, "the page is out of date; load it again")
        name, wbc, width = read_name(request, "name", ""), read_total(request), read_width(request)
        is_zip = kind_of(request) == "application/zip"
        if not (is_zip or kind_of(request).startswith("image/")):
            raise ProblemError(415, "choose an image, or a zip of images")
        largest = limits.largest_archive if is_zip else limits.largest_image
        with TemporaryDirectory(prefix="hemascope-upload-") as folder:
            with await spool_body(request, largest, limits.body_timeout, Path(folder)) as body:
                given: Iterable[NewField]
                if is_zip:
                    uploads = await run_in_threadpool(
                        unpack, body, Path(folder), limits.fields, largest
                    )
                    given = (NewField(one.name, one.path.read_bytes()) for one in uploads)
                else:
                    given = [NewField(name, body.read())]
            sample_id = await run_in_threadpool(_add, station, user, name, given, wbc, width)
        content = msgspec.json.encode({"id": sample_id})
        return Response(content, 201, media_type="application/json")

    return answer


def _add(
    station: Station,
    user: User,
    name: str,
    given: Iterable[NewField],
    wbc: float | None,
    width: float | None,
) -> str:
    sample_id = add_sample(station.store, user, name, given, wbc, width)
    station.locate(sample_id)
    return sample_id


def discard(call: Call) -> Response:
    """Removes a sample that could not be located."""
    sample_id = call.request.path_params["id"]
    with call.station.store.reading() as connection:
        if find_sample(connection, sample_id) is None:
            raise ProblemError(404, "there is no such sample")
    discard_failed(call.station.store, call.user, sample_id)
    return RedirectResponse("/", 303)
