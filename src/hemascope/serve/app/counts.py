"""/v1/counts: a field, or a zip of the fields of one sample, → a differential count."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import IO

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from hemascope.serve.app.archives import Upload, unpack
from hemascope.serve.app.bodies import kind_of, refuse_long, spool_body
from hemascope.serve.app.jobs import KINDS, Job
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.app.queries import check_names, read_name, read_total, read_width
from hemascope.serve.app.service import Service, service_of

ZIP = ("application/zip", "application/x-zip-compressed")
LONGEST_KEY = 200
PART = 1024 * 1024
FULL = "enough counts wait already; try again later"
RETRY = {"Retry-After": "10"}


async def post_count(request: Request) -> Response:
    """Takes the fields, and says where the count can be followed: 202 and Location."""
    service, kind, limits = service_of(request), kind_of(request), service_of(request).settings
    check_names(request, "sample", "wbc", "um_per_pixel")
    sample, wbc = read_name(request, "sample", "sample"), read_total(request)
    width, key = read_width(request), _read_key(request)
    is_zip = kind in ZIP
    if not (is_zip or kind.startswith("image/")):
        raise ProblemError(415, "the Content-Type must be image/* or application/zip")
    largest = limits.largest_archive if is_zip else limits.largest_image
    if service.jobs.is_full and not key:
        raise ProblemError(503, FULL, RETRY)
    refuse_long(request, largest)
    with await spool_body(request, largest, limits.body_timeout, service.folder) as body:
        asked = await asyncio.to_thread(_hash, body, f"{sample}\n{wbc}\n{width}\n{kind}")
        known = service.jobs.find_key(key)
        if known is not None:
            if known.request != asked:
                raise ProblemError(422, "this Idempotency-Key was used for another request")
            return _described(known, 202)
        if service.jobs.is_full or service.batcher.draining:
            raise ProblemError(503, FULL, RETRY)
        job = _new_job(service, sample, wbc, width, key, asked)
        try:
            job.uploads = await asyncio.to_thread(_store, body, job.folder, is_zip, service)
        except BaseException:
            service.jobs.forget(job)
            raise
    service.jobs.submit(job)
    return _described(job, 202)


def _new_job(
    service: Service, sample: str, wbc: float | None, width: float | None, key: str, asked: str
) -> Job:
    name, folder = service.jobs.new_folder()
    job = Job(name, folder, sample, [], wbc, width, key, asked)
    service.jobs.keep(job)  # so that the same key finds it while the fields are unpacked
    return job


async def get_count(request: Request) -> Response:
    """The state of a count."""
    return _described(_find(request), 200)


async def delete_count(request: Request) -> Response:
    """Cancels a count that is not over, or removes one that is, with its files."""
    job, jobs = _find(request), service_of(request).jobs
    if job.is_over:
        jobs.forget(job)
        return Response(status_code=204)
    jobs.cancel(job)
    return _described(job, 202)


async def get_file(request: Request) -> Response:
    """A result file of a count that is done."""
    job, name = _find(request), request.path_params["name"]
    if name not in KINDS:
        raise ProblemError(404, f"no such file; there are: {', '.join(KINDS)}")
    if job.state != "done":
        raise ProblemError(409, f"the count is {job.state}; its files appear when it is done")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return FileResponse(job.folder / name, headers=headers, media_type=KINDS[name])


def _find(request: Request) -> Job:
    job = service_of(request).jobs.jobs.get(request.path_params["id"])
    if job is None:
        raise ProblemError(
            404,
            "no such count; finished ones are kept for a while, over a restart only with --store",
        )
    return job


def _read_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise ProblemError(400, f"Idempotency-Key must be up to {LONGEST_KEY} printable characters")
    return key


def _hash(body: IO[bytes], facts: str) -> str:
    """A hash over a body and what else was asked, which tells requests apart."""
    found = hashlib.sha256(facts.encode())
    while part := body.read(PART):
        found.update(part)
    body.seek(0)
    return found.hexdigest()


def _store(body: IO[bytes], folder: Path, is_zip: bool, service: Service) -> list[Upload]:
    limits, fields = service.settings, folder / "fields"
    if is_zip:
        return unpack(body, fields, limits.fields, limits.largest_archive)
    path = fields / "00000"
    with path.open("xb") as file:
        shutil.copyfileobj(body, file)
    return [Upload(path, "field")]


def _described(job: Job, status: int) -> Response:
    body = msgspec.json.encode(job.describe())
    headers = {"Location": f"/v1/counts/{job.id}"} if status == 202 else None
    return Response(body, status, headers, "application/json")
