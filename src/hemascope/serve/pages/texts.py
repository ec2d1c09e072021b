"""Texts of the pages, a file for each language; what is missing in one is shown in English."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hemascope.classes import find_counted_class
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.pages.sentences import Sentences, read_sentences
from hemascope.serve.store.labels import OUTSIDE, UNIDENTIFIED
from hemascope.wording import fill

FOLDER = Path(__file__).parent / "texts"
Language: TypeAlias = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True)
class Texts:
    """The texts of one language by their keys."""

    language: Language
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with values in its places. Raises KeyError for an unknown key."""
        return fill(self.texts[key], **values)

    def say(self, text: str) -> str:
        """What the rest of the package says in English; what is not known here stays English."""
        return text if self.language == "en" else _sentences(self.language).translate(text)

    def looks(self, text: str) -> str:
        """What a cell looks like: a subtype, and phrases."""
        return ": ".join(
            ", ".join(map(self.say, part.split(", "))) for part in text.split(": ") if part
        )

    def known(self, kind: str, word: str) -> str:
        """The translation of a word of some kind, or else the word: states, roles, reasons."""
        return self.texts.get(f"{kind}.{word}", word)

    def label(self, label: str) -> str:
        """A label of a cell, as people read it."""
        is_class = label != UNIDENTIFIED and label not in OUTSIDE
        title = find_counted_class(label).title if is_class else label
        return self.texts.get(f"label.{label}", title)

    @property
    def notice(self) -> str:
        """What these pages are for."""
        return self.texts.get("notice", RESEARCH_USE_ONLY)

    @property
    def of_scripts(self) -> dict[str, str]:
        """The texts that scripts show, by the last part of their keys."""
        return {
            key.removeprefix("js."): text for key, text in self.texts.items() if key[:3] == "js."
        }


@cache
def read_texts(language: Language) -> Texts:
    """The texts of a language."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(("en", language)):
        found |= json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Texts(language, found)


@cache
def _sentences(language: Language) -> Sentences:
    return read_sentences(read_texts(language).texts)


def choose_language(accepted: str) -> Language:
    """The language that a browser prefers among ours, by its Accept-Language.

    >>> choose_language("de-CH, de;q=0.9, en;q=0.8"), choose_language("fr, en;q=0.5, de;q=0.4")
    ('de', 'en')
    """
    weights: dict[Language, float] = {}
    for part in accepted.split(","):
        tag, _, weight = part.strip().partition(";q=")
        for language in LANGUAGES:
            if tag.split("-")[0].lower() == language:
                weights.setdefault(language, _number(weight))
    return max(weights, key=lambda language: weights[language]) if any(weights.values()) else "en"


def _number(weight: str) -> float:
    try:
        return float(weight or 1)
    except ValueError:
        return 0.0
