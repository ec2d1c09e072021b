"""How many actions a review takes, by the scripted expert of `benchmarks/review_speed.py`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from review_speed import measure

if not os.environ.get("CI"):
    pytest.importorskip("playwright", reason="Playwright is not installed")


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("chromium") and not os.environ.get("CI"), reason="apt-get install chromium"
)
def test_an_expert_reviews_in_few_actions(tmp_path: Path, cheap_passwords: None) -> None:
    """Six of sixty are wrong; looks and actions take a second each. The benchmark has 200."""
    found = measure(tmp_path, cells=60, wrong=6, one_by_one=False)["galleries"]
    assert 2 * 6 < found["actions"] <= 30
    assert found["seconds"] < 180
