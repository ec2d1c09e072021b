"""The study's figures, and the architecture that one of them is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from hemascope.metrics.intervals import wilson
from hemascope.models import MODELS, create_model
from hemascope.models.network import CellNetwork
from hemascope.models.summary import layers_of, multiply_accumulates, parameters_of
from hemascope.records import Estimate, Proportion
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

NOTHING = Proportion(0, 0, None, None, None)


def svg(folder: Path, draw: Callable[[], Figure]) -> str:
    """The SVG's text; the figure is drawn and saved twice, and both files have the same bytes."""
    files = []
    for name in ("first", "second"):
        save(draw(), folder, name)
        files.append([(folder / f"{name}.{kind}").read_bytes() for kind in ("svg", "png")])
    assert files[0] == files[1]
    assert files[0][1].startswith(b"\x89PNG")
    return files[0][0].decode()


def record(epoch: int, val_accuracy: float | None, val_loss: float | None) -> EpochRecord:
    return EpochRecord(epoch, 96, 1e-3, 1.0, 0.5, val_loss, val_accuracy, 10.0, 100.0, 900.0)


@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_network(name: str) -> None:
    network = create_model(name)
    layers = layers_of(network, 64)
    assert sum(layer.parameters for layer in layers) == parameters_of(network)
    assert sum(layer.multiply_accumulates for layer in layers) == multiply_accumulates(network, 64)
    assert layers[-1].shape == (8, 1, 1)
    assert len({layer.name for layer in layers}) == len(layers)


def test_layers_of_the_papers_network() -> None:
    layers = layers_of(create_model("deep_efficientnet"), 224)
    blocks = [f"block {number}" for number in range(1, 14)]
    assert [layer.name for layer in layers] == ["stem", *blocks, "head", "pool", "linear"]
    assert sum(layer.parameters for layer in layers) == 1_840_228
    assert (layers[0].kind, layers[0].stride) == ("Conv 3×3", 2)
    assert [layer.kind for layer in layers[1:3]] == ["MBConv 1, 3×3", "MBConv 6, 3×3"]
    assert [layer.stride for layer in layers[1:14]] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    assert (layers[-3].kind, layers[-3].shape) == ("Conv 1×1", (320, 14, 14))
    assert layers[-2].shape == (320, 1, 1)


def test_a_hidden_layer_takes_the_place_of_the_mean() -> None:
    layers = layers_of(create_model("simple_cnn"), 64)
    assert [layer.name for layer in layers[-2:]] == ["linear 1", "linear 2"]
    assert layers[-2].parameters == 512 * (256 * 14 * 14 + 1)


@pytest.mark.parametrize("squeeze_excite", [True, False])
def test_squeeze_excite_follows_its_switch(squeeze_excite: bool) -> None:
    layers = layers_of(create_model("deep_efficientnet", squeeze_excite=squeeze_excite), 64)
    assert {layer.squeeze_excite for layer in layers[1:14]} == {squeeze_excite}
    assert not any(layer.squeeze_excite for layer in (layers[0], *layers[14:]))


def test_multiply_accumulates_of_a_convolution_and_a_linear_layer() -> None:
    """3×3, 3 to 5 channels, stride 2: 9·3·5 at each of 32² places; then 5·7."""
    convolution = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    network = CellNetwork(nn.Sequential(convolution), 5, 7, drop_rate=0.0)
    conv, pool, linear = layers_of(network, 64)
    assert (conv.shape, conv.parameters) == ((5, 32, 32), 9 * 3 * 5 + 5)
    assert conv.multiply_accumulates == 9 * 3 * 5 * 32 * 32
    assert (pool.parameters, pool.multiply_accumulates) == (0, 0)
    assert linear.multiply_accumulates == 5 * 7
    assert multiply_accumulates(network, 64) == 9 * 3 * 5 * 32 * 32 + 5 * 7


def test_reading_a_network_leaves_it_as_it_was() -> None:
    network = create_model("efficientnet_lite").train()
    network.maps[0].eval()  # type: ignore[index]
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    layers_of(network, 64)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.slow
def test_architecture_is_drawn_with_its_numbers(tmp_path: Path) -> None:
    layers = layers_of(create_model("deep_efficientnet"), 224)
    drawn = svg(tmp_path, lambda: draw_architecture(layers, "Deep"))
    for layer in layers:
        assert f">{layer.name}<" in drawn
        assert f">{layer.parameters:,}<" in drawn
    operations = sum(layer.multiply_accumulates for layer in layers) / 1e6
    totals = f"1,840,228 parameters, {operations:,.1f} M multiply-accumulates"
    for text in (">Deep<", totals, "MBConv 6, 3×3, stride 2", ">320 × 14 × 14<", "squeeze-excite"):
        assert text in drawn
    assert "image of 224 × 224" not in drawn
    save(draw_architecture(layers, "Deep", 224), tmp_path, "sized")
    assert "image of 224 × 224" in (tmp_path / "sized.svg").read_text()


def test_models_are_drawn_with_theirs(tmp_path: Path) -> None:
    bars = [
        ModelBar("SimpleCNN", None, wilson(70, 100), 0.7562, None),
        ModelBar("Deep", wilson(61, 64), Estimate(0.934, 100, 0.9, 0.96), 0.9938, 0.98),
        ModelBar("Nothing", NOTHING, NOTHING, None, None),
    ]
    names = ["monocyte", "ig"]
    drawn = svg(tmp_path, lambda: draw_models(bars, [[48, 2], [0, 0]], names, "Deep, test"))
    low, high = wilson(70, 100).low or 0, wilson(70, 100).high or 0
    for text in (
        *("SimpleCNN", "Deep", "Nothing", "monocyte", "ig", "Deep, test, n = 50"),
        *("validation, n = 64", "test, n = 100", "93.4 (90.0–96.0)", "◇ 99.38", "◇ 75.62", ">48<"),
        f"70.0 ({100 * low:.1f}–{100 * high:.1f})",
    ):
        assert text in drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([(0.5, 1.0), (0.875, 0.5), (0.75, 0.2)], "seed 0; best: epoch 2, 87.5 %"),
        ([(0.75, 0.5), (0.75, 0.4), (0.75, 0.6)], "seed 0; best: epoch 2, 75.0 %"),
        ([(None, None), (None, None)], ">seed 0<"),
    ],
)
def test_curves_mark_the_best_epoch(
    tmp_path: Path, rows: Sequence[tuple[float | None, float | None]], label: str
) -> None:
    records = [record(epoch, *row) for epoch, row in enumerate(rows, start=1)]
    drawn = svg(tmp_path, lambda: draw_curves([("seed 0", records), ("other", records[:1])]))
    assert label in drawn
    assert "training, on augmented images" in drawn


def test_ablations_say_where_the_axis_begins(tmp_path: Path) -> None:
    bars = (
        AblationBar("full", Estimate(0.95, 100, 0.9, 0.98), is_reference=True),
        AblationBar("stochastic depth only", Estimate(0.8, 120, 0.72, 0.86), is_reference=False),
        AblationBar("not run", NOTHING, is_reference=False),
    )
    drawn = svg(tmp_path, lambda: draw_ablations([AblationGroup("Regularisation", bars)]))
    for text in (
        *("Regularisation", ">95.0<", ">(90.0–98.0)<", ">80.0<", ">(72.0–86.0)<", "not run"),
        *("axis begins at 65 %", "n = 100–120"),
    ):
        assert text in drawn


def test_ablations_without_any_result_are_drawn_from_zero(tmp_path: Path) -> None:
    groups = [AblationGroup("Learning rate", (AblationBar("cosine", NOTHING, is_reference=True),))]
    figure = draw_ablations(groups)
    assert figure.axes[0].get_ylim()[0] == 0
    assert not figure.axes[0].patches
    assert not figure.axes[0].lines
    assert "n = 0" in svg(tmp_path, lambda: draw_ablations(groups))


def test_the_references_accuracy_crosses_its_panel() -> None:
    bars = tuple(AblationBar(str(k), wilson(90 + k, 100), is_reference=k == 1) for k in range(2))
    figure = draw_ablations([AblationGroup("a", bars)])
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [tuple(line.get_ydata()) for line in dashed] == [(91.0, 91.0)]
