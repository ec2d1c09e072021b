"""Manifest: which labelled cells there are, and in which images; a CSV file and a folder.

The columns are the fields of ManifestRow, of which all but `path` and `label` may be missing; other
columns are passed over. Paths are relative to the manifest's root, with forward slashes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from hemascope.classes import ClassSet
from hemascope.data.csv_table import open_table
from hemascope.data.masks import note_masks
from hemascope.data.split_folders import find_split_folders
from hemascope.errors import ManifestError, UnknownClassError
from hemascope.escaping import escape_formula, read_escaped
from hemascope.files import write_atomic
from hemascope.folders import find_files, find_spelling
from hemascope.preprocess import IMAGE_SUFFIXES, UM_PER_PIXEL, View

SPLITS = ("train", "val", "test", "external", "pool")
PBC_NAME = re.compile(r"([A-Z]+)_\d+")  # MMY_100254.jpg: a metamyelocyte
MAX_PLACE = 1_000_000.0  # pixels; no image is wider
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ManifestRow:
    """One labelled cell. What is empty or None is unknown.

    `group` is what the cell shares with others of its laboratory, such as the patient or the slide.
    `um_per_pixel` is how many micrometres a pixel of the image is wide. (`x`, `y`) is the cell's
    centre, in pixels from the upper left corner of the upright image; None for the image's middle.
    """

    path: str
    label: str
    subtype: str = ""
    split: str = ""
    sha256: str = ""
    laboratory: str = ""
    group: str = ""
    um_per_pixel: float | None = None
    x: float | None = None
    y: float | None = None

    @property
    def centre(self) -> tuple[float, float] | None:
        """The cell's place in its image; None for the image's middle."""
        return None if self.x is None or self.y is None else (self.x, self.y)

    def view(self, root: Path) -> View:
        """Where the cell is seen: its image under the manifest's root, its scale, its place."""
        return View(str(root / self.path), self.um_per_pixel, self.centre)


COLUMNS = tuple(field.name for field in fields(ManifestRow))
ALWAYS_WRITTEN = COLUMNS[:5]  # the others only where a row has them


@dataclass(frozen=True)
class Manifest:
    """Labelled images: rows, and the folder that their paths are relative to.

    Parameters
    ----------
    root
        That folder.
    rows
        One per cell; an image may have several.
    hidden
        How many hidden files and folders were passed over in the folder.
    notes
        How a folder was read and what else was passed over there, in a sentence each.

    Examples
    --------
    >>> from pathlib import Path
    >>> from hemascope import Manifest
    >>> from hemascope.data.manifest import ManifestRow
    >>> row = ManifestRow("a.png", "monocyte", split="test")
    >>> Manifest(Path("cells"), (row,)).select("test").class_names()
    ('monocyte',)
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

    def views(self) -> list[View]:
        """Where each row's cell is seen, in order."""
        return [row.view(self.root) for row in self.rows]

    def names(self) -> list[str]:
        """What each row is called in results: its path, and its place where others share it."""
        cells = Counter(row.path for row in self.rows)
        return [
            row.path
            if cells[row.path] == 1 or row.centre is None
            else f"{row.path} ({row.x:g}, {row.y:g})"
            for row in self.rows
        ]

    def fill_scale(self, um_per_pixel: float | None) -> Manifest:
        """The manifest with this width of a pixel for the rows that have none of their own."""
        rows = (
            replace(row, um_per_pixel=um_per_pixel) if row.um_per_pixel is None else row
            for row in self.rows
        )
        return replace(self, rows=tuple(rows))

    def separate_outliers(self, classes: ClassSet) -> tuple[Manifest, Manifest]:
        """The rows of these classes, and the rows whose label is none of them."""
        known = tuple(row for row in self.rows if row.label in classes)
        others = tuple(row for row in self.rows if row.label not in classes)
        return replace(self, rows=known), replace(self, rows=others)


def read_manifest(
    path: Path, root: Path | None = None, classes: ClassSet | None = None
) -> Manifest:
    """The manifest in a CSV file, by default relative to the file's own folder.

    Spaces around fields are dropped, except around paths. Backslashes in a path are read as slashes
    where the file is there that way, and links are followed. With a class set, labels are brought
    to its spelling. Raises ManifestError for a file that is no such CSV, a missing column, an empty
    or unknown label, a SHA-256 that is none, a scale or a place that cannot be, a path that leaves
    the root, a cell given twice, or no rows at all. That the images exist is not checked.
    """
    root = root or path.parent
    rows: dict[tuple[str, tuple[float, float] | None], ManifestRow] = {}
    with open_table(path) as reader:
        missing = [name for name in ("path", "label") if name not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(
                f"{path}: no column '{missing[0]}'; the first line must name the columns, path "
                f"and label at least, with commas between them: {','.join(COLUMNS)}"
            )
        twice = [name for name, count in Counter(reader.fieldnames).items() if count > 1]
        if named := [name for name in twice if name in COLUMNS]:
            raise ManifestError(f"{path}: two columns '{named[0]}'; keep one of them")
        for values in reader:
            row = _row(values, f"{path}, line {reader.line_num}", root, classes)
            if (row.path, row.centre) in rows:
                raise ManifestError(
                    f"{path}, line {reader.line_num}: '{row.path}' is listed a second time; "
                    "keep one of the lines, or give each cell its place, in x and y"
                )
            rows[row.path, row.centre] = row
    if not rows:
        raise ManifestError(f"{path}: lists no images")
    return Manifest(root, tuple(rows.values()))


def _row(
    values: dict[str, str | None], where: str, root: Path, classes: ClassSet | None
) -> ManifestRow:
    if any(values.pop(None, ())):  # type: ignore[call-overload]
        raise ManifestError(
            f"{where}: more fields than the first line has columns; put a field with a comma in it "
            "in quotes"
        )
    texts = {name: read_escaped(values.get(name) or "").strip() for name in COLUMNS}
    path = find_spelling(read_escaped(values.get("path") or ""), str(root))
    label, sha256 = texts["label"], texts["sha256"].lower()
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
    if bool(texts["x"]) != bool(texts["y"]):
        raise ManifestError(f"{where}: x and y must both be filled in, or neither")
    return ManifestRow(
        PurePosixPath(path).as_posix(),
        label if classes is None else match_spelling(label, where, classes),
        texts["subtype"],
        texts["split"],
        sha256,
        texts["laboratory"],
        texts["group"],
        _number("um_per_pixel", texts, where, UM_PER_PIXEL),
        _number("x", texts, where, (0.0, MAX_PLACE)),
        _number("y", texts, where, (0.0, MAX_PLACE)),
    )


def _number(
    name: str, texts: dict[str, str], where: str, limits: tuple[float, float]
) -> float | None:
    """A column's number, None where it is empty."""
    text, (low, high) = texts[name], limits
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ManifestError(
            f"{where}: {name} must be a number from {low:g} to {high:g}, not '{text}'"
        )
    return value


def match_spelling(label: str, where: str, classes: ClassSet) -> str:
    """The label in the class set's spelling. Raises UnknownClassError, with `where`."""
    known = classes.find(label)
    if known is None:
        raise UnknownClassError(
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
    """Writes the CSV: the first five columns, and each other one that a row has a value in.

    Raises ManifestError where the file exists and may not be replaced.
    """
    if path.exists() and not overwrite:
        raise ManifestError(f"{path}: exists already; use --force (overwrite=True) to replace it")
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    columns = [
        name
        for name in COLUMNS
        if name in ALWAYS_WRITTEN
        or any(getattr(row, name) not in ("", None) for row in manifest.rows)
    ]
    writer.writerow(columns)
    writer.writerows(
        [escape_formula(getattr(row, name)) for name in columns] for row in manifest.rows
    )
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
        note_masks([row.path for row in rows]),
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
