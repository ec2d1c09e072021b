"""read_paths: a list of paths, one a line, as programs on any system write it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hemascope.files import decode_text
from hemascope.folders import find_spelling

QUOTES = "\"'"


def read_paths(content: bytes) -> list[str]:
    """The paths in a list, of which a line each that is not blank holds one.

    Line ends are those of any system, or zero bytes, and the text is UTF-8, with or without a byte
    order mark, or UTF-16. A path may stand in quotes, or have backslashes between its folders; but
    a name that a file has is never changed. Names of any bytes come through. Raises ValueError for
    text in none of these encodings.
    """
    try:
        text = decode_text(content, "surrogateescape")
    except UnicodeDecodeError:
        raise ValueError("the list of images is damaged text; save it as UTF-8") from None
    end = "\0" if "\0" in text else "\n" if "\n" in text else "\r"
    return [_find(line) for line in text.split(end) if line.strip()]


def _find(line: str) -> str:
    """The path that a line means: the first spelling that is there, or else the plainest."""
    plain = line.rstrip("\r")
    if line == plain == line.strip() and line[0] not in QUOTES and "\\" not in line:
        return line  # nothing can be meant but what it says
    return next((path for path in _spellings(line) if os.path.lexists(path)), plain)


def _spellings(line: str) -> Iterator[str]:
    """A line as it is, without its line end, without the spaces and then the quotes around it."""
    for path in (line, line.rstrip("\r"), line.strip()):
        yield find_spelling(path)
    bare = line.strip()
    if len(bare) > 1 and bare[0] in QUOTES and bare[-1] == bare[0]:
        for path in (bare[1:-1], bare[1:-1].replace(bare[0] * 2, bare[0])):
            yield find_spelling(path)
