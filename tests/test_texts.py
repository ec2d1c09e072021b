"""The texts of the review pages: all are there in each language, and all English has its German."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import hemascope
from hemascope.attributes import ATTRIBUTES
from hemascope.classes import COUNTED_CLASSES
from hemascope.data.synthetic import draw_cell
from hemascope.decoding import decode
from hemascope.decoding.kinds import UNKNOWN
from hemascope.errors import ImageError
from hemascope.serve.pages.sentences import KINDS, SAY
from hemascope.serve.pages.texts import FOLDER, LANGUAGES, Texts, read_texts
from hemascope.serve.store.people import ROLES
from hemascope.serve.store.samples import SampleState
from hemascope.serve.store.signing import Signature
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import count_sample
from hemascope.smear.reasons import AT_BORDER, NO_SCALE, NO_WHITE_CELL, REASONS
from hemascope.smear.reported import report_quantities
from hemascope.uncertainty.drift import FALLING, RISING
from hemascope.uncertainty.image_style import MEASURES
from hemascope.wording import PLACE, fill, read_values
from named_fields import card_of, field_of, white

SOURCE = Path(hemascope.__file__).parent
OF_OTHERS = (*(f"{kind}." for kind in KINDS), SAY, "notice")
"""Keys that hold the English themselves."""
SAYING = (
    *("smear/flags.py", "smear/method.py", "smear/reported.py", "smear/naming.py"),
    *("smear/differential.py", "serve/store/recount.py", "serve/store/signing.py"),
    *("post_training/adapt.py", "post_training/check_cells.py"),
)
REFUSING = (
    *(f"serve/pages/{path.name}" for path in (SOURCE / "serve/pages").glob("*.py")),
    *(f"serve/store/{name}.py" for name in ("added", "people", "review", "signing", "samples")),
    *(f"serve/store/{name}.py" for name in ("proficiency", "bundles")),
    *(f"serve/app/{name}.py" for name in ("archives", "bodies")),
)
DECODING = [f"decoding/{path.name}" for path in (SOURCE / "decoding").glob("*.py")]
REFUSALS = ("ProblemError", "ConflictError", "RefusedError", "ValueError")
PLURAL = re.compile(r"(?<!to )(?<!bis )\b1 (cells|fields|samples|Zellen|Felder|Proben)\b")


def own_keys(language: str) -> dict[str, str]:
    texts = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return {key: text for key, text in texts.items() if not key.startswith(OF_OTHERS)}


def places_of(text: str) -> set[str]:
    return {name for name, *_ in PLACE.findall(text)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_key_of_one_language_is_in_the_others(language: str) -> None:
    english, others = own_keys("en"), own_keys(language)
    assert set(english) == set(others)
    for key, text in english.items():
        assert places_of(text) == places_of(others[key]), key


def test_all_texts_are_used() -> None:
    pages = SOURCE / "serve" / "pages"
    sources = [*(pages / "templates").iterdir(), *(pages / "static").glob("*.js")]
    source = "".join(path.read_text() for path in sources)
    for key in own_keys("en"):
        name = key.removeprefix("js.")
        is_made = key.startswith(("status.", "bundle.", "account."))
        assert is_made or re.search(rf"\bt(ext)?\([\"']{name}[\"']", source), key


def literals(node: ast.AST) -> Iterator[str]:
    """The texts in a piece of code; of formatted ones, with {} for each value."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def calls(names: tuple[str, ...], *paths: str) -> Iterator[ast.Call]:
    for path in paths:
        for node in ast.walk(ast.parse((SOURCE / path).read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id in names:
                yield node


def templates_of(*paths: str) -> set[str]:
    """What `fill` is given, there and then or by a name."""
    found = {text for call in calls(("fill",), *paths) for text in literals(call.args[0])}
    for path in paths:
        for node in ast.walk(ast.parse((SOURCE / path).read_text(encoding="utf-8"))):
            found |= {text for text in literals(node) if PLACE.search(text) and " " in text}
    return found


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_each_sentence_of_the_package_is_translated(language: str) -> None:
    said = {key[len(SAY) :]: text for key, text in read_texts(language).texts.items() if SAY in key}
    templates = templates_of(*SAYING)
    assert len(templates) > 40
    assert templates - set(said) == set()
    for template, text in said.items():
        assert places_of(text) <= places_of(template), template


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_each_refusal_is_translated(language: str) -> None:
    known = {PLACE.sub("{}", key[len(SAY) :]) for key in read_texts(language).texts if SAY in key}
    refusals = {
        text
        for call in (*calls(REFUSALS, *REFUSING), *calls(("ImageError",), *DECODING))
        for argument in call.args
        for text in literals(argument)
    }
    assert len(refusals) > 100
    assert refusals - known == set()


@pytest.mark.parametrize("kind", UNKNOWN.values())
def test_a_file_of_another_kind_is_refused_in_german(kind: str) -> None:
    said = read_texts("de").say(f"slide.png: {kind}; save the image as PNG, TIFF or JPEG")
    assert said.startswith("slide.png: ein")
    assert said.endswith("; bitte das Bild als PNG, TIFF oder JPEG speichern")
    assert kind not in said


def test_what_is_wrong_with_an_image_is_said_in_german() -> None:
    with pytest.raises(ImageError) as caught:
        decode(cut_jpeg())
    template = "none of its {n} {n?field|fields} could be read; {why}"
    said = read_texts("de").say(fill(template, n=1, why=f"slide.jpg: {caught.value}"))
    assert said == (
        "keines der Felder (n = 1) konnte gelesen werden; "
        "slide.jpg: beschädigtes Bild: der untere Teil fehlt"
    )


def cut_jpeg() -> bytes:
    """A JPEG whose end mark stands where half of its lines have come."""
    file = io.BytesIO()
    draw_cell("monocyte", 1).save(file, "JPEG")
    content = file.getvalue()
    return content[: len(content) * 2 // 3] + b"\xff\xd9"


def test_each_word_is_translated() -> None:
    texts = read_texts("de")
    words = {
        "reason": (*REASONS, AT_BORDER, NO_SCALE, NO_WHITE_CELL),
        "role": ROLES,
        "state": (*get_args(SampleState), "amended", "being amended"),
        "measure": MEASURES,
    }
    for kind, found in words.items():
        for word in found:
            assert f"{kind}.{word}" in texts.texts
    for counted in COUNTED_CLASSES:
        if counted.role != "other":
            assert texts.say(counted.title) != counted.title
            assert f"label.{counted.names[0]}" in texts.texts
    for word in (*FALLING, *RISING):
        assert texts.say(word) != word
    for attribute in ATTRIBUTES:
        for phrase in filter(None, attribute.phrases):
            assert texts.say(phrase) != phrase
    assert texts.looks("band neutrophil: segmented nucleus, fine pink granules") == (
        "stabkernige Neutrophile: segmentierter Kern, Granula: fein und rosa"
    )


def strange_count() -> DifferentialCount:
    """A count with as many flags as one count can have."""
    cells = [white("ig"), white("ig"), white("erythroblast"), white("neutrophil")]
    cells += [white("monocyte", ("unlike the training cells",)) for _ in range(9)]
    cells += [white("monocyte", ("no class is likely enough",))]
    cells += [white("monocyte", ("blurred",)) for _ in range(9)]
    fields = [
        field_of(cells, "a.png"),
        field_of([], "empty.png", red=0),
        replace(field_of([]), path="bad.png", status="empty file"),
        field_of([white("monocyte")], "b.png", scale=None),
    ]
    return count_sample("slide", fields, card_of(), 7.2)


def english_of(count: DifferentialCount) -> list[str]:
    """The sentences of a count in English."""
    sentences = [flag.text for flag in count.flags]
    sentences += re.split(r"(?<=\.) (?=[A-Z0-9])", count.method)
    for found in report_quantities(count):
        sentences += found.describe().split("; ")
    signature = Signature(1, "Dr. Ada", "reviewer", "2026-11-28T12:05", "falsch. Sehr", count)
    return [*sentences, signature.describe()]


def test_a_count_is_said_in_german() -> None:
    count, texts = strange_count(), read_texts("de")
    assert len(count.flags) >= 7
    for sentence in english_of(count):
        said = texts.say(sentence)
        assert said != sentence
        assert not re.search(r"\b(the|cells?|fields?|were|was|interval|named|and)\b", said), said
    paragraph = texts.say(count.method)
    assert not re.search(r"\b(the|cells?|fields?|were|was|and)\b", paragraph), paragraph
    assert read_texts("en").say(count.method) == count.method


def test_what_people_wrote_stays_as_it_is() -> None:
    texts = read_texts("de")
    for text in ("", "blurred cells. Look again.", "Dr. No", "<b>1 cell</b>", "{n}"):
        assert texts.say(text) == text
    signature = Signature(
        2, "Dr. No", "reviewer", "2026-11-28T12:05", "cells. Two.", strange_count()
    )
    said = texts.say(signature.describe())
    assert "von Dr. No (Prüfung)" in said
    assert said.endswith("Berichtigt: cells. Two.")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("number", [1, 2])
def test_numbers_have_their_forms(language: str, number: int) -> None:
    texts: Texts = read_texts(language)
    for key, text in texts.texts.items():
        if PLACE.search(text):
            filled = fill(text, **{name: number for name in places_of(text)})
            assert number != 1 or not PLURAL.search(filled), key


@pytest.mark.parametrize(
    ("template", "text", "values"),
    [
        ("{n} {n?cell|cells}", "1 cell", {"n": "1"}),
        ("{n} {n?cell|cells} of {n}", "3 cells of 3", {"n": "3"}),
        ("{n} {n?cell|cells} of {n}", "3 cells of 4", None),
        ("a {x}", "b 1", None),
        ("{x}.", "a (b) [c].", {"x": "a (b) [c]"}),
    ],
)
def test_a_sentence_is_taken_apart(template: str, text: str, values: dict[str, str] | None) -> None:
    found = read_values(template, text)
    assert (found and found[0]) == values
