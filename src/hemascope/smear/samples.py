"""Which samples folders, lists and manifests name, and which fields each has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.batch.inputs import check_some_exist, find_inputs, is_address
from hemascope.batch.path_list import read_paths
from hemascope.data.csv_table import open_table
from hemascope.errors import ManifestError
from hemascope.escaping import read_escaped
from hemascope.folders import NOTHING, PassedOver, find_spelling

LISTS = (".txt", ".lst")
COLUMNS = ("path", "sample", "wbc")
MOST_WBC = 2000.0  # in 10⁹/L; more has not been seen, and is of another unit


@dataclass(frozen=True)
class Sample:
    """One smear: its name, the paths of its fields, and its white cell count in 10⁹/L if given."""

    name: str
    paths: tuple[str, ...]
    wbc: float | None = None


@dataclass(frozen=True)
class Samples:
    """Samples in the order they were given, and what was passed over beside their fields."""

    samples: tuple[Sample, ...]
    passed_over: PassedOver = NOTHING

    @property
    def fields(self) -> int:
        """How many fields there are in all."""
        return sum(len(sample.paths) for sample in self.samples)


def find_samples(inputs: Sequence[str], wbc: float | None = None) -> Samples:
    """The samples that folders, lists (.txt), manifests (.csv), patterns and files name.

    A folder is a sample, with all images below it; a list of paths is one; a manifest has a column
    `sample`. Files and patterns together are one sample, named after the folder that they are in.
    `wbc` is the white cell count of a single sample. Raises ValueError where an input names no
    field or an object store, two samples have one name, or `wbc` is given for several; and
    ManifestError.
    """
    found: list[tuple[Sample, str]] = []  # with where it was named
    loose: list[str] = []
    passed_over = NOTHING
    for text in inputs:
        if is_address(text):
            raise ValueError(
                f"{text}: fields are read from a disk, not from an object store; copy them to one"
            )
        if os.path.isdir(text):
            inside = find_inputs([text])
            found.append((Sample(_name_of(text), tuple(inside.images)), text))
            passed_over += inside.passed_over
        elif os.path.isfile(text) and text.lower().endswith(LISTS):
            found.append((Sample(Path(text).stem, tuple(_read_list(text))), text))
        elif os.path.isfile(text) and text.lower().endswith(".csv"):
            found += [(sample, text) for sample in read_samples(Path(text))]
        else:
            inside = find_inputs([text])
            loose += inside.images
            passed_over += inside.passed_over
    if loose:
        paths = tuple(dict.fromkeys(loose))
        found.append((Sample(_name_of(os.path.dirname(paths[0]) or "."), paths), "the files"))
    if not found:
        raise ValueError("no field was given; name a folder, a list or a manifest of fields")
    _check_names(found)
    samples = tuple(sample for sample, _ in found)
    if wbc is not None:
        samples = (_with_total(samples, wbc),)
    return Samples(samples, passed_over)


def _with_total(samples: Sequence[Sample], wbc: float) -> Sample:
    if len(samples) > 1:
        raise ValueError(
            f"--wbc is of one sample, and {len(samples)} are given; use a manifest with a column "
            "wbc"
        )
    check_total(wbc, "--wbc")
    return Sample(samples[0].name, samples[0].paths, wbc)


def check_total(wbc: float, where: str) -> None:
    """Raises ValueError for what is no white cell count in 10⁹/L."""
    if not 0 < wbc <= MOST_WBC:
        raise ValueError(
            f"{where} must be a white cell count in 10⁹/L, more than 0 and up to "
            f"{MOST_WBC:g}, not {wbc:g}"
        )


def _name_of(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder)) or "sample"


def _check_names(found: Iterable[tuple[Sample, str]]) -> None:
    """Raises ValueError where two samples have the same name."""
    seen: dict[str, str] = {}
    for sample, where in found:
        if sample.name in seen:
            raise ValueError(
                f"two samples are called '{sample.name}', in {seen[sample.name]} and in {where}; "
                "rename one, or give a manifest with a column sample"
            )
        seen[sample.name] = where


def _read_list(path: str) -> list[str]:
    paths = read_paths(Path(path).read_bytes())
    if not paths:
        raise ValueError(f"{path}: lists no fields")
    check_some_exist(paths, path)
    return list(dict.fromkeys(paths))


def read_samples(path: Path) -> list[Sample]:
    """The samples of a manifest: the columns path and sample, and wbc in 10⁹/L if there is one.

    Paths start from the manifest's folder. Raises ManifestError for a table that is no such
    manifest, a field given twice, or two totals of one sample.
    """
    samples: dict[str, list[str]] = {}
    totals: dict[str, float] = {}
    owners: dict[str, str] = {}
    with open_table(path) as reader:
        for column in COLUMNS[:2]:
            if column not in (reader.fieldnames or ()):
                raise ManifestError(
                    f"{path}: no column '{column}'; a manifest of fields has the columns path and "
                    "sample, and may have wbc"
                )
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            field, sample, wbc = _row(values, where, str(path.parent))
            if field in owners:
                raise ManifestError(
                    f"{where}: '{field}' is listed a second time (sample '{owners[field]}'); keep "
                    "one of the lines"
                )
            owners[field] = sample
            samples.setdefault(sample, []).append(field)
            if wbc is not None and totals.setdefault(sample, wbc) != wbc:
                raise ManifestError(f"{where}: sample '{sample}' has another wbc above; keep one")
    if not samples:
        raise ManifestError(f"{path}: lists no fields")
    paths = {name: [str(path.parent / field) for field in found] for name, found in samples.items()}
    check_some_exist([field for found in paths.values() for field in found], str(path))
    return [Sample(name, tuple(found), totals.get(name)) for name, found in paths.items()]


def _row(values: Mapping[str, str | None], where: str, root: str) -> tuple[str, str, float | None]:
    field = find_spelling(read_escaped(values.get("path") or ""), root)
    sample = read_escaped(values.get("sample") or "").strip()
    if not field or not sample:
        raise ManifestError(f"{where}: path and sample must both be filled in")
    text = (values.get("wbc") or "").strip()
    if not text:
        return field, sample, None
    try:
        wbc = float(text)
    except ValueError:
        wbc = math.nan
    try:
        check_total(wbc, f"{where}: wbc")
    except ValueError as error:
        raise ManifestError(str(error)) from None
    return field, sample, wbc
