"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images: HEMASCOPE_DATA, by default ../shared/data.

    Without it the test is skipped, but not in continuous integration, where it must be there.
    """
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HEMASCOPE_DATA", default))
    if not (folder / "pbc" / "splits.csv").exists():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} has no pbc/splits.csv; set HEMASCOPE_DATA")
        pytest.skip("no real images here; set HEMASCOPE_DATA to their folder")
    return folder
