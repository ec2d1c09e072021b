"""A differential count as a FHIR R4 Bundle: DiagnosticReport, Observations, Specimen, Device.

The report is preliminary until somebody signs it. Intervals are components, as no reference range.
When the blood was taken, and whose it is, is not known here: there is neither `effective` nor
`subject`.
https://hl7.org/fhir/R4/diagnosticreport.html, https://hl7.org/fhir/R4/observation.html
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from hemascope import __version__
from hemascope.classes import DIFFERENTIAL_PANEL, LoincCode
from hemascope.escaping import escape_controls
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.reported import (
    Reported,
    ReportStatus,
    describe_review,
    report_quantities,
)

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem"
SAMPLE_SYSTEM = "urn:hemascope:sample"
NAMESPACE = uuid.UUID("5f6f2c1e-6f6b-5c57-9d2b-5a0f4a5a3b10")  # ours, for names of resources


def to_fhir(count: DifferentialCount, status: ReportStatus = "preliminary") -> str:
    """The Bundle of a count as JSON, with the same names for the same count.

    Only a count that somebody signed has another `status` than preliminary.
    """
    specimen, device, report = (_url(count, name) for name in ("specimen", "device", "report"))
    issued = count.provenance["created"]
    common = {"specimen": {"reference": specimen}, "device": {"reference": device}}
    observations = [
        (_url(count, f"observation {number}"), _observation(found, issued, status) | common)
        for number, found in enumerate(report_quantities(count))
    ]
    unidentified = _unidentified(count, issued, status) | common
    observations.append((_url(count, "unidentified"), unidentified))
    results = [{"reference": url} for url, _ in observations]
    entries = [
        (report, _report(count, issued, specimen, results, status)),
        *observations,
        (specimen, _specimen(count)),
        (device, _device(count)),
    ]
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": issued,
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in entries],
    }
    return json.dumps(bundle, ensure_ascii=False, indent=2) + "\n"


def _url(count: DifferentialCount, name: str) -> str:
    key = f"{count.sample}\n{count.provenance['created']}\n{name}"
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, key)}"


def _report(
    count: DifferentialCount,
    issued: str,
    specimen: str,
    results: list[dict[str, str]],
    status: ReportStatus,
) -> dict[str, Any]:
    flags = [f"{flag.name}: {flag.text}" for flag in count.flags]
    return {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": SAMPLE_SYSTEM, "value": _text(count.sample)}],
        "status": status,
        "category": [{"coding": [{"system": f"{HL7}/v2-0074", "code": "HM"}]}],
        "code": _code(DIFFERENTIAL_PANEL, "Differential count"),
        "issued": issued,
        "specimen": [{"reference": specimen}],
        "result": results,
        "conclusion": _text(". ".join([RESEARCH_USE_ONLY.rstrip("."), *flags, count.method])),
    }


def _observation(found: Reported, issued: str, status: ReportStatus) -> dict[str, Any]:
    value = _quantity(found.number, found.unit)
    if found.at_most:
        value["comparator"] = "<="
    components = [
        _component("Lower limit of the 95 % interval", _quantity(found.value.low, found.unit)),
        _component("Upper limit of the 95 % interval", _quantity(found.value.high, found.unit)),
    ]
    if found.raw is not None:
        components += [
            _component("As counted", _quantity(found.raw.value, found.unit)),
            _component(
                "As counted, lower limit of the exact 95 % interval",
                _quantity(found.raw.low, found.unit),
            ),
            _component(
                "As counted, upper limit of the exact 95 % interval",
                _quantity(found.raw.high, found.unit),
            ),
        ]
    if found.counted is not None:
        for title, cells in (
            ("Cells of this class", found.counted.successes),
            ("Cells counted", found.counted.n),
        ):
            components.append({"code": {"text": title}, "valueInteger": cells})
    return _laboratory(_code(found.code, found.name), issued, status) | {
        "valueQuantity": value,
        "note": [{"text": _text(found.describe())}],
        "component": components,
    }


def _unidentified(count: DifferentialCount, issued: str, status: ReportStatus) -> dict[str, Any]:
    """How many white cells have no name, with a component for each reason."""
    components = [
        {"code": {"text": _text(why)}, "valueInteger": cells}
        for why, cells in count.unidentified.items()
    ]
    found = _laboratory({"text": "White cells without a name, in no percentage"}, issued, status)
    found["valueInteger"] = sum(count.unidentified.values())
    return found | ({"component": components} if components else {})


def _laboratory(code: dict[str, Any], issued: str, status: ReportStatus) -> dict[str, Any]:
    category = {"system": f"{HL7}/observation-category", "code": "laboratory"}
    return {
        "resourceType": "Observation",
        "status": status,
        "category": [{"coding": [category]}],
        "code": code,
        "issued": issued,
        "method": {"text": describe_review(status)},
    }


def _specimen(count: DifferentialCount) -> dict[str, Any]:
    blood = {"system": f"{HL7}/v2-0487", "code": "BLD"}
    return {
        "resourceType": "Specimen",
        "identifier": [{"system": SAMPLE_SYSTEM, "value": _text(count.sample)}],
        "type": {"coding": [blood], "text": "Blood smear"},
    }


def _device(count: DifferentialCount) -> dict[str, Any]:
    versions = [("Hemascope", __version__), ("model.onnx", count.provenance["model_sha256"])]
    return {
        "resourceType": "Device",
        "deviceName": [{"name": f"Hemascope {count.provenance['model']}", "type": "model-name"}],
        "version": [{"type": {"text": name}, "value": value} for name, value in versions],
        "note": [{"text": RESEARCH_USE_ONLY}],
    }


def _code(code: LoincCode | None, text: str) -> dict[str, Any]:
    plain = {"text": _text(text)}
    return plain if code is None else {"coding": [{"system": LOINC, "code": code.code}]} | plain


def _component(title: str, quantity: dict[str, Any]) -> dict[str, Any]:
    return {"code": {"text": title}, "valueQuantity": quantity}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": round(value, 4), "unit": unit, "system": UCUM, "code": unit}


def _text(text: str) -> str:
    """Text as FHIR's strings may be: without control characters, and not blank."""
    return escape_controls(text).strip() or "unnamed"
