r"""A differential count as an HL7 v2.5.1 message ORU^R01: MSH, OBR, OBX with NTE, SPM.

The results are preliminary (P) until somebody signs, and the message is for training (T), not for
production. Segments end in a carriage return, as the standard says. Whose blood it is and when it
was taken is not known here, so that there is no PID and no time of observation, but that of the
analysis.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from hemascope import __version__
from hemascope.classes import DIFFERENTIAL_PANEL, LoincCode
from hemascope.escaping import escape_controls
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.reported import (
    Reported,
    ReportStatus,
    describe_review,
    format_number,
    report_quantities,
)

NAMESPACE = uuid.UUID("0e0a1c55-4a2f-5a8e-8d4b-7c1d1c0f6a77")  # ours, for names of messages
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
LOCAL = "99HEMASCOPE"
LONGEST_ID = 20  # characters of MSH-10
STATUSES: dict[ReportStatus, str] = {"preliminary": "P", "final": "F", "amended": "C"}


@dataclass(frozen=True)
class Message:
    """What is reported, when, and whether somebody has signed it."""

    count: DifferentialCount
    when: str
    status: ReportStatus


def escape_hl7(text: str) -> str:
    r"""Text with HL7's separators written out, and what is not visible too.

    >>> escape_hl7("a|b^c&d~e")
    'a\\F\\b\\S\\c\\T\\d\\R\\e'
    """
    visible = escape_controls(text)
    return "".join(ESCAPES.get(character, character) for character in visible)


def to_hl7(count: DifferentialCount, status: ReportStatus = "preliminary") -> str:
    """The message of a count, with the same identifier for the same count and status.

    Only a count that somebody signed has another `status` than preliminary.
    """
    when = datetime.fromisoformat(count.provenance["created"]).strftime("%Y%m%d%H%M%S%z")
    message = Message(count, when, status)
    key = f"{count.sample}\n{count.provenance['created']}"
    number = uuid.uuid5(NAMESPACE, key if status == "preliminary" else f"{key}\n{status}").hex
    segments = [
        _header(when, number[:LONGEST_ID]),
        _request(message),
        *_notes([RESEARCH_USE_ONLY, *(f"{flag.name}: {flag.text}" for flag in count.flags)]),
        *_notes([count.method], first=2 + len(count.flags)),
    ]
    results = list(report_quantities(count))
    for index, found in enumerate(results, start=1):
        segments += [_result(index, found, message), *_notes([found.describe()])]
    segments.append(_unidentified(len(results) + 1, message))
    reasons = [f"{cells} {why}" for why, cells in count.unidentified.items()]
    segments += _notes(reasons)
    segments.append(_specimen(count))
    return "".join(segment + "\r" for segment in segments)


def _segment(name: str, fields: dict[int, str]) -> str:
    """A segment with its fields by their numbers; the fields are escaped already."""
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])


def _header(when: str, number: str) -> str:
    fields = {
        2: "Hemascope",
        6: when,
        8: "ORU^R01^ORU_R01",
        9: number,
        10: "T",
        11: "2.5.1",
        17: "UNICODE UTF-8",
    }
    # The separator itself is MSH-1, so that the numbers are one less here.
    return _segment("MSH", {1: "^~\\&"} | fields)


def _request(message: Message) -> str:
    order = f"{escape_hl7(message.count.sample)}^Hemascope"
    return _segment(
        "OBR",
        {
            1: "1",
            3: order,
            4: _coded(DIFFERENTIAL_PANEL, ""),
            22: message.when,
            25: STATUSES[message.status],
        },
    )


def _result(index: int, found: Reported, message: Message) -> str:
    number = format_number(found.number)
    kind, value = ("SN", f"<=^{number}") if found.at_most else ("NM", number)
    unit = f"{escape_hl7(found.unit)}^^UCUM"
    return _observation(index, kind, _coded(found.code, found.name), value, unit, message)


def _unidentified(index: int, message: Message) -> str:
    code = f"UNIDENTIFIED^White cells without a name, in no percentage^{LOCAL}"
    total = str(sum(message.count.unidentified.values()))
    return _observation(index, "NM", code, total, "", message)


def _observation(index: int, kind: str, code: str, value: str, unit: str, message: Message) -> str:
    device = f"{escape_hl7(message.count.provenance['model'])}^Hemascope {__version__}"
    return _segment(
        "OBX",
        {
            1: str(index),
            2: kind,
            3: code,
            5: value,
            6: unit,
            11: STATUSES[message.status],
            17: f"^{escape_hl7(describe_review(message.status))}^{LOCAL}",
            18: device,
            19: message.when,
        },
    )


def _notes(texts: list[str], first: int = 1) -> list[str]:
    return [
        _segment("NTE", {1: str(number), 2: "L", 3: escape_hl7(text)})
        for number, text in enumerate(texts, start=first)
    ]


def _specimen(count: DifferentialCount) -> str:
    return _segment(
        "SPM", {1: "1", 2: f"^{escape_hl7(count.sample)}", 4: "BLD^Whole blood^HL70487"}
    )


def _coded(code: LoincCode | None, name: str) -> str:
    if code is None:
        return f"{escape_hl7(name)}^{escape_hl7(name)}^{LOCAL}"
    return f"{code.code}^{escape_hl7(code.measures)}^LN"
