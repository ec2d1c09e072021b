"""The fields of an upload: one image, or a zip of images, as files of our own names in a folder."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hemascope.decoding import IMAGE_SUFFIXES
from hemascope.escaping import escape_controls
from hemascope.serve.app.problems import ProblemError

PART = 1024 * 1024
LONGEST_NAME = 200
END = struct.Struct("<4s4H2LH")  # the end of a zip's list of entries
LONGEST_COMMENT, LONGEST_DIRECTORY = 2**16, 2**22  # bytes


@dataclass(frozen=True)
class Upload:
    """A field as it lies on the disk, and what its sender calls it."""

    path: Path
    name: str


def unpack(file: IO[bytes], folder: Path, most: int, largest: int) -> list[Upload]:
    """Writes the images of a zip into a folder; their own names are shown, and never used as paths.

    Folders, hidden files and files of other suffixes are passed over. Raises a Problem for a file
    that is no zip, is damaged or encrypted, holds no image or more than `most`, or whose images
    unpack to more than `largest` bytes together, whatever its headers say.
    """
    _check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = [entry for entry in archive.infolist() if _is_field(entry)]
            if not chosen:
                raise ProblemError(422, "the archive holds no image")
            if len(chosen) > most:
                raise ProblemError(413, f"the archive holds more than {most} images")
            uploads, left = [], largest
            for number, entry in enumerate(chosen):
                path = folder / f"{number:05d}"
                left -= _extract(archive, entry, path, left)
                uploads.append(Upload(path, shown_name(entry.filename)))
            return _tell_apart(uploads)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise ProblemError(422, f"the archive cannot be unpacked: {error}") from None
    except RuntimeError:  # as zipfile says that a password is needed
        raise ProblemError(422, "the archive is encrypted") from None


def shown_name(name: str) -> str:
    """A file's name as it is shown: its last part, short, with what is not visible written out."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return escape_controls(last)[:LONGEST_NAME] or "image"


def _check_directory(file: IO[bytes]) -> None:
    """Raises a Problem for a zip with so long a list of entries that reading it takes memory."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - END.size - LONGEST_COMMENT))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < END.size:
        raise ProblemError(422, "the body is no zip archive")
    *_, listed, _, comment = END.unpack_from(tail, at)
    is_long = tail[max(0, at - 20) : at].startswith(b"PK\x06\x07")
    if is_long or listed > LONGEST_DIRECTORY or start + at + END.size + comment != size:
        raise ProblemError(422, "the archive is of a kind that is not taken; use a plain zip")
    file.seek(0)


def _tell_apart(uploads: Sequence[Upload]) -> list[Upload]:
    """The uploads by different names: files of one name from several folders get a number."""
    seen: Counter[str] = Counter()
    named = []
    for upload in uploads:
        seen[upload.name] += 1
        number = seen[upload.name]
        named.append(upload if number == 1 else Upload(upload.path, f"{upload.name} ({number})"))
    return named


def _is_field(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts if part != "..")
    return not (entry.is_dir() or hidden) and path.suffix.lower() in IMAGE_SUFFIXES


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, largest: int) -> int:
    """Writes one file, and says how many bytes it has."""
    total = 0
    with archive.open(entry) as packed, path.open("xb") as unpacked:
        while part := packed.read(PART):
            total += len(part)
            if total > largest:
                raise ProblemError(413, "the images of the archive are too large together")
            unpacked.write(part)
    return total
