"""FHIR R4 and HL7 v2.5.1: read by other people's readers, and checked where these do not look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fhirclient.models.bundle import Bundle
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.parser import parse_message

from hemascope.classes import COUNTED_CLASSES, DIFFERENTIAL_PANEL
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import count_sample
from hemascope.smear.fhir import to_fhir
from hemascope.smear.hl7 import escape_hl7, to_hl7
from named_fields import card_of, field_of, fields_of, white

# The names of the codes of required bindings that are used, which fhirclient does not check:
# http://hl7.org/fhir/R4/valueset-diagnostic-report-status.html and those beside it.
REPORT_STATUS = {"registered", "partial", "preliminary", "final", "amended", "corrected"}
OBSERVATION_STATUS = {"registered", "preliminary", "final", "amended", "corrected", "cancelled"}
COMPARATORS = {"<", "<=", ">=", ">"}
DEVICE_NAMES = {
    *("udi-label-name", "user-friendly-name", "patient-reported-name"),
    *("manufacturer-name", "model-name", "other"),
}
BUNDLE_TYPES = {"document", "message", "collection", "searchset", "batch", "transaction"}

HOSTILE = 'slide|1^a&b~c\\d <script>alert("ü")</script>\n17'


@pytest.fixture(scope="module")
def count() -> DifferentialCount:
    counts = {"neutrophil": 110, "lymphocyte": 60, "monocyte": 12, "eosinophil": 6, "ig": 10}
    fields = fields_of(counts | {"erythroblast": 4})
    fields.append(field_of([white("monocyte", ("blurred",))], "b.png"))
    return count_sample(HOSTILE, fields, card_of(), wbc=7.2)


@pytest.fixture(scope="module")
def tree(count: DifferentialCount) -> Any:
    return json.loads(to_fhir(count))


def resources(tree: Any, kind: str) -> list[Any]:
    found = [entry["resource"] for entry in tree["entry"]]
    return [resource for resource in found if resource["resourceType"] == kind]


def walk(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from walk(each)


def test_fhirclient_reads_the_bundle_strictly(tree: Any) -> None:
    bundle = Bundle(tree, strict=True)
    assert bundle.as_json() == tree
    kinds = [entry.resource.resource_type for entry in bundle.entry]
    assert kinds[0] == "DiagnosticReport"
    assert {"Observation", "Specimen", "Device"} < set(kinds)


def test_required_bindings_hold(tree: Any) -> None:
    assert tree["type"] in BUNDLE_TYPES
    (report,) = resources(tree, "DiagnosticReport")
    assert report["status"] == "preliminary"
    assert report["status"] in REPORT_STATUS
    for observation in resources(tree, "Observation"):
        assert observation["status"] == "preliminary"
        assert observation["status"] in OBSERVATION_STATUS
    (device,) = resources(tree, "Device")
    assert {name["type"] for name in device["deviceName"]} <= DEVICE_NAMES
    quantities = [value for value in walk(tree) if isinstance(value, dict) and "value" in value]
    assert {q["comparator"] for q in quantities if "comparator" in q} == {"<="} <= COMPARATORS


def test_no_value_is_empty_as_fhir_demands(tree: Any) -> None:
    for value in walk(tree):
        assert value not in ("", [], {}, None)
        if isinstance(value, str):
            assert value == value.strip()
            assert all(character >= " " for character in value)


def test_every_reference_leads_to_an_entry(tree: Any) -> None:
    urls = [entry["fullUrl"] for entry in tree["entry"]]
    assert len(set(urls)) == len(urls)
    references = [v["reference"] for v in walk(tree) if isinstance(v, dict) and "reference" in v]
    assert set(references) <= set(urls)
    (report,) = resources(tree, "DiagnosticReport")
    assert len(report["result"]) == len(resources(tree, "Observation"))


def test_observations_carry_codes_values_and_limits(tree: Any, count: DifferentialCount) -> None:
    (report,) = resources(tree, "DiagnosticReport")
    assert report["code"]["coding"][0]["code"] == DIFFERENTIAL_PANEL.code
    assert RESEARCH_USE_ONLY.rstrip(".") in report["conclusion"]
    found = {
        coding["code"]: observation
        for observation in resources(tree, "Observation")
        for coding in observation["code"].get("coding", ())
    }
    for row in count.classes:
        counted = next(each for each in COUNTED_CLASSES if row.name in each.names)
        assert counted.percentage is not None
        observation = found[counted.percentage.code]
        share = count.trusted_share(row)
        assert share is not None
        unseen = row.share.successes == 0
        expected = 100 * (share.high if unseen else share.value)
        assert observation["valueQuantity"]["value"] == pytest.approx(expected, abs=1e-4)
        assert ("comparator" in observation["valueQuantity"]) == unseen
        low, high = (part["valueQuantity"]["value"] for part in observation["component"][:2])
        assert (low, high) == pytest.approx((100 * share.low, 100 * share.high), abs=1e-4)
        assert observation["component"][-1] == {
            "code": {"text": "Cells counted"},
            "valueInteger": count.white,
        }
        if counted.absolute is not None:
            assert found[counted.absolute.code]["valueQuantity"]["code"] == "10*9/L"
    assert found["19048-8"]["valueQuantity"]["code"] == "/100{WBCs}"
    assert all("referenceRange" not in each for each in resources(tree, "Observation"))


def test_the_same_count_has_the_same_names(count: DifferentialCount) -> None:
    assert to_fhir(count) == to_fhir(count)
    assert to_hl7(count) == to_hl7(count)


@pytest.fixture(scope="module")
def message(count: DifferentialCount) -> Message:
    return parse_message(to_hl7(count), validation_level=VALIDATION_LEVEL.STRICT)


def test_hl7apy_reads_the_message_strictly(message: Message) -> None:
    assert message.validate()
    assert message.name == "ORU_R01"
    assert message.msh.msh_12.value == "2.5.1"
    assert message.msh.msh_11.value == "T"


def test_results_are_preliminary_with_codes_and_methods(
    message: Message, count: DifferentialCount
) -> None:
    group = message.oru_r01_patient_result.oru_r01_order_observation
    assert group.obr.obr_4.obr_4_1.value == DIFFERENTIAL_PANEL.code
    assert group.obr.obr_25.value == "P"
    results = [each.obx for each in group.oru_r01_observation]
    assert [each.obx_1.value for each in results] == [str(n + 1) for n in range(len(results))]
    assert {each.obx_11.value for each in results} == {"P"}
    assert all("not reviewed" in each.obx_17.value for each in results)
    codes = {each.obx_3.obx_3_1.value: each for each in results}
    neutrophils = count.trusted_share(count.classes[0])
    assert neutrophils is not None
    value = float(codes["26511-6"].obx_5.value)
    assert value == pytest.approx(100 * neutrophils.value, rel=1e-2)
    assert codes["30180-4"].obx_2.value == "SN"  # no basophil was seen
    assert codes["30180-4"].obx_5.value.startswith("<=^")
    assert codes["UNIDENTIFIED"].obx_5.value == "1"


def test_a_name_with_separators_comes_back(count: DifferentialCount) -> None:
    text = to_hl7(count)
    assert "\n" not in text
    assert all(line[:3] in {"MSH", "OBR", "OBX", "NTE", "SPM"} for line in text.split("\r")[:-1])
    specimen = next(line for line in text.split("\r") if line.startswith("SPM"))
    written = specimen.split("|")[2].removeprefix("^")
    assert unescape(written) == HOSTILE.replace("\n", "\\n")


def unescape(text: str) -> str:
    """What a reader makes of escapes: HL7 v2.5.1, chapter 2.7.1."""
    pieces = text.split("\\")
    meaning = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
    return "".join(meaning[piece] if odd % 2 else piece for odd, piece in enumerate(pieces))


@pytest.mark.parametrize("text", ["|^~\\&", "\\F\\", "plain", "a\\b|"])
def test_escapes_can_be_undone(text: str) -> None:
    assert unescape(escape_hl7(text)) == text
