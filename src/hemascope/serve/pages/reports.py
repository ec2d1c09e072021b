"""Signing, amending, and the reports of a sample: only what is signed is final."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from hemascope.errors import SampleError
from hemascope.serialization import to_json
from hemascope.serve.app.jobs import KINDS, to_csv
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.galleries import find
from hemascope.serve.pages.printing import print_page
from hemascope.serve.pages.render import render, render_text
from hemascope.serve.store.review import list_cells
from hemascope.serve.store.samples import StoredSample
from hemascope.serve.store.signing import (
    Signature,
    amend,
    latest_signed,
    list_signatures,
    sign,
    signed_count,
)
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.fhir import to_fhir
from hemascope.smear.hl7 import to_hl7
from hemascope.smear.reported import PER_100, PER_VOLUME, ReportStatus, report_quantities

UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
UNITS = {"%": "%", PER_VOLUME: "·10⁹/L", PER_100: "per 100 white cells"}
STATIC = Path(__file__).parent / "static"
PDF = "report.pdf"
WRITTEN = ("count.json", "count.csv", "count.fhir.json", "count.hl7")


def sign_sample(call: Call) -> Response:
    """Signs a sample as the user saw it."""
    meaning, changes = call.text("meaning", 20), call.text("changes", 20)
    if meaning not in ("technologist", "reviewer") or not changes.isdecimal():
        raise ProblemError(400, "the form is not one of the station's")
    sample_id = call.request.path_params["id"]
    sign(
        call.station.store,
        call.user,
        sample_id,
        "reviewer" if meaning == "reviewer" else "technologist",
        call.text("password", 200),
        int(changes),
        lambda connection, sample, cells: call.station.recount(connection, sample, list(cells)),
        call.station.needs_two,
    )
    return RedirectResponse(f"/samples/{sample_id}", 303)


def amend_sample(call: Call) -> Response:
    """Opens a signed sample as a new version."""
    sample_id = call.request.path_params["id"]
    amend(call.station.store, call.user, sample_id, call.text("reason", 500))
    return RedirectResponse(f"/samples/{sample_id}", 303)


def show_report(call: Call) -> Response:
    """The report as a page that prints well."""
    return render(
        "report.html.j2", call.texts, user=call.user, files=(*WRITTEN, PDF), **_shown(call)
    )


def print_report(call: Call) -> Response:
    """The report as a PDF."""
    shown = _shown(call)
    style = Markup((STATIC / "station.css").read_text(encoding="utf-8"))
    printed = print_page(render_text("printed.html.j2", call.texts, style=style, **shown))
    return _file(printed, shown["sample"], shown["status"], PDF, "application/pdf")


def _shown(call: Call) -> dict[str, Any]:
    sample, count, status, signatures = _report(call)
    texts = call.texts
    quantities = [
        (
            texts.say(found.name),
            texts.known("unit", UNITS[found.unit]),
            f"{found.number:.1f}",
            "; ".join(map(texts.say, found.describe().split("; "))),
            found.at_most,
        )
        for found in report_quantities(count)
    ]
    return {
        "sample": sample,
        "count": count,
        "status": status,
        "signatures": signatures,
        "quantities": quantities,
    }


def write_report(call: Call) -> Response:
    """The count as a file: CSV, JSON, FHIR or HL7."""
    name = call.request.path_params["name"]
    if name not in WRITTEN:
        raise ProblemError(404, f"no such file; there are: {', '.join(WRITTEN)}")
    sample, count, status, _ = _report(call)
    content = {
        "count.json": lambda: to_json(count),
        "count.csv": lambda: to_csv(count, call.station.counting),
        "count.fhir.json": lambda: to_fhir(count, status).encode(),
        "count.hl7": lambda: to_hl7(count, status).encode(),
    }[name]()
    return _file(content, sample, status, name, KINDS[name])


def _file(
    content: bytes, sample: StoredSample, status: ReportStatus, name: str, kind: str
) -> Response:
    stem = UNSAFE.sub("_", sample.name).strip("._") or "sample"
    headers = {
        "Content-Disposition": f'attachment; filename="{stem}-{status}-{name}"',
        "Cache-Control": "no-store",
    }
    return Response(content, headers=headers, media_type=kind)


def _report(
    call: Call,
) -> tuple[StoredSample, DifferentialCount, ReportStatus, list[Signature]]:
    """The count that was signed; or, of a sample that is not, the present one, preliminary."""
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        latest = latest_signed(connection, sample)
        if latest is not None:
            signatures = [
                found
                for found in list_signatures(connection, sample.id)
                if found.version == sample.version
            ]
            return sample, signed_count(signatures), latest.status, signatures
        try:
            count = call.station.recount(connection, sample, list_cells(connection, sample.id))
        except SampleError as error:
            raise ProblemError(409, str(error)) from None
    return sample, count, "preliminary", []
