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


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of three classes and 64 pixels, whose network never learnt."""
    import torch

    from hemascope.bundle.bundle import write_bundle
    from hemascope.bundle.card import Card
    from hemascope.bundle.export import draw_sample, export
    from hemascope.classes import ClassSet
    from hemascope.models import create_model
    from hemascope.preprocess import InputSpec

    torch.manual_seed(0)
    spec = InputSpec(64)
    card = Card(
        name="tiny",
        classes=ClassSet.from_names(("basophil", "monocyte", "zebra")),
        input=spec,
        architecture="efficientnet_lite",
        parameters=1,
        model_sha256="",
        training_data="nothing",
    )
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    write_bundle(export(create_model("efficientnet_lite", 3), card, draw_sample(spec)), folder)
    return folder
