"""Sentences with values in them: `fill` makes one of a template, `read_values` takes it apart.

A template is a sentence with its values in braces, as in "{n} {n?cell|cells}", where the second
place has the first form for one and the other form for any other number. Whoever shows a sentence
in another language finds it by its template.
"""

from __future__ import annotations

import re
from functools import cache

PLACE = re.compile(r"\{(\w+)(?:\?([^|{}]*)\|([^{}]*))?\}")
FREE = ("name", "names", "reason", "why")
"""Values that people wrote, which may hold a full stop."""


def fill(template: str, **values: object) -> str:
    """A template with its values.

    Examples
    --------
    >>> from hemascope.wording import fill
    >>> fill("{n} {n?cell was|cells were} found", n=1)
    '1 cell was found'
    >>> fill("{n} {n?cell was|cells were} found in {name}", n=3, name="a.png")
    '3 cells were found in a.png'
    """

    def place(found: re.Match[str]) -> str:
        name, one, other = found.groups()
        value = str(values[name])
        return value if one is None else one if value == "1" else other

    return PLACE.sub(place, template)


def read_values(
    template: str, text: str, is_whole: bool = True
) -> tuple[dict[str, str], int] | None:
    """The values that `fill` made a text with, and where it ends; None for another template.

    Unless it is whole, the text may go on after a space.

    Examples
    --------
    >>> from hemascope.wording import read_values
    >>> read_values("{n} {n?cell was|cells were} found.", "3 cells were found. Look!", False)
    ({'n': '3'}, 19)
    """
    pattern = _pattern(template, is_whole)
    found = pattern.fullmatch(text) if is_whole else pattern.match(text)
    return None if found is None else (found.groupdict(), found.end())


@cache
def _pattern(template: str, is_whole: bool) -> re.Pattern[str]:
    parts, end = [], 0
    seen: set[str] = set()
    for place in PLACE.finditer(template):
        name, one, other = place.groups()
        parts.append(re.escape(template[end : place.start()]))
        if one is not None:
            parts.append(f"(?:{re.escape(one)}|{re.escape(other)})")
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            anything = "." if name in FREE else r"(?!\. )."
            parts.append(f"(?P<{name}>(?:{anything})+?)")
            seen.add(name)
        end = place.end()
    rest = re.escape(template[end:]) + ("" if is_whole else r"(?= |\Z)")
    return re.compile("".join(parts) + rest, re.DOTALL)
