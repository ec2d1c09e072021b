"""The study's figures, and the architecture that one of them is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from hemascope.models import MODELS, Switches, build_model
from hemascope.results import Estimate
from hemascope.scoring.statistics import wilson
from hemascope.study.architecture import layers_of, multiply_accumulates, parameters_of
from hemascope.study.figures import (
    AblationBar,
    AblationGroup,
    ModelBar,
    draw_ablations,
    draw_architecture,
    draw_curves,
    draw_models,
    save,
)
from hemascope.training.folder import EpochRecord


@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_network(name: str) -> None:
    network = build_model(name).train()
    layers = layers_of(network, 64)
    assert sum(layer.parameters for layer in layers) == parameters_of(network)
    assert sum(layer.multiply_accumulates for layer in layers) == multiply_accumulates(network, 64)
    assert layers[-1].shape == (8, 1, 1)
    assert network.training


def test_layers_of_the_papers_network() -> None:
    layers = layers_of(build_model("deep_efficientnet"), 224)
    assert len(layers) == 1 + 13 + 1 + 1
    assert layers[0].kind == "Conv 3×3, stride 2"
    assert layers[2].kind == "MBConv 3×3, ×6, stride 2, squeeze-excite"
    assert layers[-2].shape == (320, 14, 14)
    assert sum(layer.parameters for layer in layers) == 1_840_228
    without = layers_of(build_model("deep_efficientnet", 8, Switches(squeeze_excite=False)), 96)
    assert not any("squeeze" in layer.kind for layer in without)


def test_multiply_accumulates_of_one_convolution() -> None:
    """A 3×3 convolution of 3 to 5 channels with stride 2: 9·3·5 at each of 32² places."""
    assert multiply_accumulates(torch.nn.Conv2d(3, 5, 3, 2, 1), 64) == 9 * 3 * 5 * 32 * 32


def svg(folder: Path, draw: Callable[[], Figure]) -> str:
    """The SVG's text; drawn twice, both files have the same bytes."""
    files = []
    for _ in range(2):
        save(draw(), folder, "figure")
        files.append([(folder / f"figure.{kind}").read_bytes() for kind in ("svg", "png")])
    assert files[0] == files[1]
    return files[0][0].decode()


def test_architecture_is_drawn_with_its_numbers(tmp_path: Path) -> None:
    layers = layers_of(build_model("deep_efficientnet"), 96)
    drawn = svg(tmp_path, lambda: draw_architecture(layers, "Deep", 96))
    for text in ("1,840,228 parameters", "MBConv 3×3, ×6", "320 × 6 × 6", "386,120"):
        assert text in drawn


def test_models_are_drawn_with_theirs(tmp_path: Path) -> None:
    bars = [
        ModelBar("SimpleCNN", None, wilson(70, 100), 0.7562, None),
        ModelBar("Deep", wilson(61, 64), Estimate(0.934, 100, 0.9, 0.96), 0.9938, 0.98),
    ]
    drawn = svg(tmp_path, lambda: draw_models(bars, [[48, 2], [5, 45]], ["monocyte", "ig"], "Deep"))
    for text in ("SimpleCNN", "70.0", "93.4", "monocyte", "Deep, n = 100", "test n = 100"):
        assert text in drawn


def test_curves_mark_the_best_epoch(tmp_path: Path) -> None:
    def record(epoch: int, val: float | None) -> EpochRecord:
        loss = None if val is None else 1 - val
        return EpochRecord(epoch, 96, 1e-3, 1.0, 0.5, loss, val, 10.0, 100.0, 900.0)

    records = [record(1, 0.5), record(2, 0.875), record(3, 0.75)]
    assert "epoch 2: 87.5 %" in svg(tmp_path, lambda: draw_curves([("seed 0", records)]))
    assert "seed 1" in svg(tmp_path, lambda: draw_curves([("seed 1", [record(1, None)])]))


def test_ablations_say_where_the_axis_begins(tmp_path: Path) -> None:
    bars = (
        AblationBar("full", wilson(95, 100), is_reference=True),
        AblationBar("dropout only", wilson(80, 100), is_reference=False),
    )
    drawn = svg(tmp_path, lambda: draw_ablations([AblationGroup("Augmentation", bars)]))
    for text in ("Augmentation", "95.0", "80.0", "The axis begins at 65 %", "n = 100"):
        assert text in drawn
