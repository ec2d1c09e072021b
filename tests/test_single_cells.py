"""Real fields are told from real images of single cells, by the locator that ships."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hemascope.smear.locate import Locator
from hemascope.smear.naming import looks_single, probe_sample
from hemascope.smear.samples import Sample

SINGLE = ("pbc/ig", "pbc/platelet", "pbc/lymphocyte", "munich", "jiangxi", "bccd_crops")
FIELDS = ("bccd/JPEGImages", "fields/draaslan", "fields/chula")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "single"), [*((name, True) for name in SINGLE), *((name, False) for name in FIELDS)]
)
def test_single_cells_are_told_from_fields(real_data: Path, folder: str, single: bool) -> None:
    paths = [
        path
        for path in (real_data / folder).rglob("*")
        if path.suffix.lower() in SUFFIXES and "mask" not in str(path)
    ]
    paths.sort(key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    locator = Locator.from_bundle(threads=1)
    located = [locator.locate(str(path)) for path in paths[:12]]
    assert looks_single(located) == single
    probe = probe_sample(Sample("sample", tuple(map(str, paths[:12]))), locator, None)
    assert ("images of single cells" in probe.refused) == single
