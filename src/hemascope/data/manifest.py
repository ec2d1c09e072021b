"""Manifest: which images there are, with their labels; a CSV file and a folder.

The columns are `path,label,subtype,split,sha256`, of which the last three may be missing; others
are passed over. Paths are relative to the manifest's root, with forward slashes.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path, PurePosixPath

from hemascope.classes import ClassSet
from hemascope.data.split_folders import find_split_folders
from hemascope.errors import ManifestError
from hemascope.escaping import escape_formula, read_escaped
from hemascope.files import decode_text, write_atomic
from hemascope.folders import find_files, find_spelling
from hemascope.preprocess import IMAGE_SUFFIXES

SPLITS = ("train", "val", "test", "external", "pool")
PBC_NAME = re.compile(r"([A-Z]+)_\d+")  # MMY_100254.jpg: a metamyelocyte
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ManifestRow:
    """One image. Empty fields are unknown."""

    path: str
    label: str
    subtype: str = ""
    split: str = ""
    sha256: str = ""


COLUMNS = tuple(field.name for field in fields(ManifestRow))


@dataclass(frozen=True)
class Manifest:
    """Rows, and the folder that their paths are relative to.

    `hidden` counts the hidden files and folders that were passed over in a folder. `notes` say in a
    sentence each how a folder was read, and what else was passed over there.
    """

    root: Path
    rows: tuple[ManifestRow, ...]
    hidden: int = 0
    notes: tuple[str, ...] = ()

    def select(self, split: str) -> Manifest:
        """The rows of one split. Raises ManifestError where there are none."""
        rows = tuple(row for row in self.rows if row.split == split)
        if not rows:
            splits = ", ".join(sorted({row.split for row in self.rows if row.split})) or "none"
            raise ManifestError(f"no image is in split '{split}'; the splits there are: {splits}")
        return replace(self, rows=rows)

    def class_names(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({row.label for row in self.rows}))


def read_manifest(
    path: Path, root: Path | None = None, classes: ClassSet | None = None
) -> Manifest:
    """The manifest in a CSV file, by default relative to the file's own folder.

    Spaces around fields are dropped, except around paths. Backslashes in a path are read as slashes
    where the file is there that way, and links are followed. With a class set, labels are brought
    to its spelling. Raises ManifestError for a file that is no such CSV, a missing column, an empty
    or unknown label, a SHA-256 that is none, a path that leaves the root, a path given twice, or no
    rows at all. That the images exist is not checked.
    """
    root = root or path.parent
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not UTF-8 text; save the table as UTF-8 CSV") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, ManifestRow] = {}
    try:
        missing = [name for name in ("path", "label") if name not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(
                f"{path}: no column '{missing[0]}'; the first line must name the columns "
                f"{','.join(COLUMNS)} (the last three may be missing), with commas between them"
            )
        for values in reader:
            row = _row(values, f"{path}, line {reader.line_num}", root, classes)
            if row.path in rows:
                raise ManifestError(
                    f"{path}, line {reader.line_num}: '{row.path}' is listed a second time; "
                    "keep one of the lines"
                )
            rows[row.path] = row
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
    if not rows:
        raise ManifestError(f"{path}: lists no images")
    return Manifest(root, tuple(rows.values()))


def _row(
    values: dict[str, str | None], where: str, root: Path, classes: ClassSet | None
) -> ManifestRow:
    path, label, subtype, split, sha256 = (read_escaped(values.get(name) or "") for name in COLUMNS)
    path = find_spelling(path, str(root))
    label, subtype, split = label.strip(), subtype.strip(), split.strip()
    sha256 = sha256.strip().lower()
    if not path or not label:
        raise ManifestError(f"{where}: path and label must both be filled in")
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ManifestError(
            f"{where}: '{path}' lies outside {root}; paths must be relative to it, within it"
        )
    if sha256 and not SHA256.fullmatch(sha256):
        raise ManifestError(
            f"{where}: '{sha256}' is no SHA-256 (64 hexadecimal digits); correct it or leave it out"
        )
    if classes is not None:
        label = match_spelling(label, where, classes)
    return ManifestRow(PurePosixPath(path).as_posix(), label, subtype, split, sha256)


def match_spelling(label: str, where: str, classes: ClassSet) -> str:
    """The label in the class set's spelling. Raises ManifestError, with `where`, if unknown."""
    known = classes.find(label)
    if known is None:
        raise ManifestError(
            f"{where}: unknown class '{label}'; the classes are {', '.join(classes.names)}"
        )
    return known.name


def check_labels(labelled: Iterable[tuple[str, str]], classes: ClassSet) -> None:
    """Raises ManifestError for the first of (path, label) whose label is no class of the set."""
    for path, label in labelled:
        if label not in classes:
            raise ManifestError(
                f"{path}: its label '{label}' is no class of the model ({', '.join(classes.names)})"
            )


def write_manifest(manifest: Manifest, path: Path, overwrite: bool = False) -> None:
    """Writes the CSV. Raises ManifestError where the file exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise ManifestError(f"{path}: exists already; use --force (overwrite=True) to replace it")
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows([escape_formula(text) for text in astuple(row)] for row in manifest.rows)
    write_atomic(path, table.getvalue())


def manifest_from_folder(folder: Path) -> Manifest:
    """The images in a tree with one folder per class (PBC's layout, and ImageFolder's).

    A class is a folder directly under `folder`, or one level deeper where the folders there are
    splits (see `split_folders`), which are recorded and noted. All images below a class's folder
    are its own; links are followed, and each real folder is read once. Hidden files, those without
    an image's suffix, and those in no class are passed over and noted.

    The subtype is the folder inside the class's folder, or the code before the number in names
    like MMY_100254.jpg; but what stands in several classes, such as a slide's name or IMG_0001,
    says nothing of a cell and is no subtype. Raises ManifestError where there are no images in
    class folders, and for a folder or a link that cannot be read.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder")
    files, passed_over = find_files(str(folder), IMAGE_SUFFIXES)
    for problem in passed_over.unreadable:
        raise ManifestError(f"{problem}; make it readable, or take it away")
    images = sorted(PurePosixPath(Path(file).relative_to(folder).as_posix()) for file in files)
    _check_names(folder, images)
    split_folders = find_split_folders(folder, images)
    splits = split_folders.splits
    rows = [_row_of(path, splits) for path in images if len(path.parts) > (2 if splits else 1)]
    if not rows:
        detail = f"{len(images)} images, but not in class folders" if images else "no images"
        raise ManifestError(
            f"{folder}: holds {detail}; expected one folder a class, as in "
            f"{folder.name}/neutrophil/cell.jpg"
        )
    outside = len(images) - len(rows)
    notes = (
        str(split_folders),
        f"{outside} images in no class's folder are passed over" if outside else "",
        f"passed over: {passed_over}" if passed_over else "",
    )
    return Manifest(
        folder, _keep_telling_subtypes(rows), passed_over.hidden, tuple(filter(None, notes))
    )


def _row_of(path: PurePosixPath, splits: Mapping[str, str]) -> ManifestRow:
    *split, label, first = path.parts[: 3 if splits else 2]
    nested = len(path.parts) > len(split) + 2
    return ManifestRow(
        path.as_posix(),
        label.strip(),
        subtype=first.strip() if nested else _pbc_code(first),
        split=splits[split[0]] if split else "",
    )


def _check_names(folder: Path, images: Iterable[PurePosixPath]) -> None:
    """Raises ManifestError for a name that a manifest, which is UTF-8, cannot hold."""
    for image in images:
        try:
            bytes(image).decode()
        except UnicodeDecodeError:
            raise ManifestError(f"{folder}: {str(image)!a} is not UTF-8; rename the file") from None


def _pbc_code(name: str) -> str:
    match = PBC_NAME.fullmatch(PurePosixPath(name).stem)
    return match.group(1) if match else ""


def _keep_telling_subtypes(rows: list[ManifestRow]) -> tuple[ManifestRow, ...]:
    """The rows, without the subtypes that several classes share."""
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.subtype].add(row.label)
    return tuple(
        replace(row, subtype=row.subtype if len(labels[row.subtype]) == 1 else "") for row in rows
    )
