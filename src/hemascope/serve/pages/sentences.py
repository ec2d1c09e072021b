"""What the rest of the package says in English, in another language: flags, methods, problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hemascope.classes import find_counted_class
from hemascope.wording import FREE, fill, read_values

KINDS = ("label", "reason", "role", "state", "measure", "unit")
SAY = "say."
AS_IT_IS = frozenset(FREE) - {"why"}


@dataclass(frozen=True, eq=False)
class Sentences:
    """Translations of English words, and of sentences by their templates, the longest first."""

    words: Mapping[str, str]
    templates: tuple[tuple[str, str], ...]

    def translate(self, text: str) -> str:
        """A sentence, or several; what is not known stays as it is."""
        return self._whole(text) or " ".join(self._one_by_one(text))

    def _whole(self, text: str) -> str | None:
        parts = text.split(", ")
        if all(part in self.words for part in parts):
            return ", ".join(self.words[part] for part in parts)
        for template, translation in self.templates:
            found = read_values(template, text)
            if found is not None:
                return self._fill(translation, found[0])
        return None

    def _one_by_one(self, text: str) -> list[str]:
        sentences, rest = [], text
        while rest:
            sentence, end = self._first(rest)
            sentences.append(sentence)
            rest = rest[end:].lstrip(" ")
        return sentences

    def _first(self, text: str) -> tuple[str, int]:
        """The sentence with which a text begins, translated, and where it ends."""
        for template, translation in self.templates:
            found = read_values(template, text, is_whole=False) if template[-1] == "." else None
            if found is not None:
                return self._fill(translation, found[0]), found[1]
        end = text.find(". ") + 1 or len(text)
        return text[:end], end

    def _fill(self, translation: str, values: Mapping[str, str]) -> str:
        said = {
            name: value if name in AS_IT_IS else self._translate_value(value)
            for name, value in values.items()
        }
        return fill(translation, **said)

    def _translate_value(self, value: str) -> str:
        """A value, which may be what is wrong with a file, after the name of the file."""
        path, sign, problem = value.partition(": ")
        if sign and self._whole(value) is None:
            return f"{path}{sign}{self.translate(problem)}"
        return self.translate(value)


def read_sentences(texts: Mapping[str, str]) -> Sentences:
    """The words and sentences among the texts of a language."""
    words: dict[str, str] = {}
    for key, text in texts.items():
        kind, _, word = key.partition(".")
        if word and kind in KINDS:
            words[word] = text
            if kind == "label":
                words[find_counted_class(word).title] = text
    templates = [(key[len(SAY) :], text) for key, text in texts.items() if key.startswith(SAY)]
    templates.sort(key=lambda pair: -len(pair[0]))
    return Sentences(words, tuple(templates))
