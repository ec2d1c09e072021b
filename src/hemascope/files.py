"""Files that appear whole or not at all; the hash and the text of a file's content."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARKS = {  # the longer ones first, since UTF-16's begins UTF-32's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
TOKEN = "[0-9a-f]{8}"  # in the name of a temporary file


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file, text in UTF-8, that appears whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on success and removed on any failure.

    A full disk, an error or Ctrl-C thus never leaves half a file, nor harms the one before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{path.suffix}"
    try:
        _create(temporary)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # a full disk does not say which
        raise


def torn_files(path: Path) -> list[Path]:
    """The temporary files of `path` that are there, being written or left by a killed process."""
    torn = re.compile(re.escape(f".{path.name}.") + TOKEN + re.escape(path.suffix))
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    return [entry for entry in there if torn.fullmatch(entry.name)]


def remove_torn(path: Path) -> None:
    """Removes what processes that were killed while they wrote `path` have left beside it.

    Only for what no other process may be writing.
    """
    _unlink(torn_files(path))


def remove_torn_below(folder: Path) -> None:
    """The same for every file in a folder, and in those in it, that is one process's own."""
    _unlink(entry for entry in folder.rglob(".*") if is_torn(entry))


def is_torn(path: Path) -> bool:
    """Whether it has the name of a temporary file of `atomic_path`."""
    return re.fullmatch(rf"\..+\.{TOKEN}(\.[^.]+)?", path.name) is not None


def _unlink(entries: Iterable[Path]) -> None:
    for entry in list(entries):
        entry.unlink(missing_ok=True)


def _create(path: Path) -> None:
    """An empty new file, with the rights that the umask leaves."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def read_regular(path: Path) -> bytes:
    """A file's content.

    Raises OSError as reading does, and for a pipe or a device, which might never end.
    """
    if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return path.read_bytes()


def sha256_of(content: bytes) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def decode_text(content: bytes, errors: str = "strict") -> str:
    """A text file's content: UTF-8, or UTF-16 or UTF-32 as Windows programs write them.

    A byte order mark says which, and is left out; of UTF-16 without one, every other byte of plain
    text is zero. Raises UnicodeDecodeError, unless `errors` is as for bytes.decode.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, errors)
    head = content[:512]
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) > 1 and head[start::2].count(0) > 0.8 * len(head[start::2]):
            return content.decode(encoding, errors)
    return content.decode("utf-8", errors)
