"""Names and labels from outside, made safe to show: on a terminal, in a page, in a spreadsheet."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"  # several scripts are spelt with these

# What a spreadsheet takes for the start of a formula, also after spaces and in full width, and the
# apostrophes before it that are ours or that a name really has.
FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def escape_controls(text: str) -> str:
    r"""Text with what is not visible written out, such as line breaks and changes of direction.

    Terminals obey some of these characters, and some make a name look like another one.

    >>> escape_controls("cell\u202egnp.exe")
    'cell\\u202egnp.exe'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in INVISIBLE or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode()


def escape_formula(value: Any) -> Any:
    """A value for a CSV field; text that is a formula to a spreadsheet gets an apostrophe before.

    Numbers stay as they are, also in text. `read_escaped` gives back any text as it was.

    >>> escape_formula("=1+1.png"), escape_formula("-0.5"), escape_formula("cell-1.png")
    ("'=1+1.png", '-0.5', 'cell-1.png')
    """
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def read_escaped(field: str) -> str:
    """The text that `escape_formula` made a CSV field of.

    >>> read_escaped("'=1+1.png"), read_escaped("'cell'.png")
    ('=1+1.png', "'cell'.png")
    """
    return field[1:] if field.startswith("'") and FORMULA.match(field) else field
