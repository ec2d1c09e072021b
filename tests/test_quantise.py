"""Eight bits: the same answers, in matrices that no processor overflows on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from drawn import draw_cell
from hemascope.bundle.bundle import Bundle, read_bundle, write_bundle
from hemascope.bundle.card import Card
from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.heads import read_heads
from hemascope.classes import BLOOD_CELLS
from hemascope.cli import app
from hemascope.errors import BundleError
from hemascope.inference.classifier import Classifier
from hemascope.models import create_model
from hemascope.models.ensemble import Ensemble
from hemascope.models.network import CellNetwork
from hemascope.post_training import quantise as quantising
from hemascope.post_training.quantise import quantise
from hemascope.preprocess import InputSpec
from samples import shrink

SPEC = InputSpec(64)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    drawn = [draw_cell(name, seed) for seed in range(3) for name in BLOOD_CELLS.names]
    return np.stack([SPEC.apply(cell) for cell in drawn])


def make_network(model: str, seed: int = 0, **settings: Any) -> CellNetwork:
    """A network that has learnt nothing but the scales of its layers."""
    torch.manual_seed(seed)
    network = create_model(model, **settings)
    network.train()
    with torch.no_grad():
        for _ in range(4):  # batch normalisation learns the scales
            network(torch.rand(8, 3, 64, 64))
    return network


def export_run(model: str) -> Bundle:
    return export_network(make_network(model), model)


def export_network(network: CellNetwork | Ensemble, model: str = "efficientnet_mini") -> Bundle:
    card = Card(
        name=model,
        classes=BLOOD_CELLS,
        input=SPEC,
        architecture=model,
        parameters=1,
        model_sha256="",
        training_data="nothing",
        temperature=2.0,
    )
    return export(network, card, draw_sample(SPEC))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["upscaled", "stain normalised", "light normalised", "an ensemble of both"]
)
def test_every_normalisation_is_kept_apart(kind: str, cells: np.ndarray) -> None:
    network: CellNetwork | Ensemble
    if kind == "light normalised":
        network = make_network("efficientnet_mini", normalise_light=True)
    elif kind == "upscaled":
        network = make_network("efficientnet_mini", input_upscale=1.5)
    else:
        network = make_network("efficientnet_mini", seed=1, normalise_stain=True)
        with torch.no_grad():
            network.head.bias.normal_()  # the exporter keeps equal tensors once
        if kind == "an ensemble of both":
            network = Ensemble([make_network("efficientnet_mini", input_upscale=1.5), network])
    bundle = export_network(network)
    before = Classifier(bundle).outputs(cells).logits
    quantised = quantise(bundle, cells, least_agreement=0.0)  # untrained logits hardly differ
    for ours, theirs in zip(read_heads(quantised).members, read_heads(bundle).members, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
    after = Classifier(quantised).outputs(cells).logits
    np.testing.assert_allclose(after, before, atol=0.1 * before.std())


@pytest.fixture(scope="module")
def mini() -> Bundle:
    return export_run("efficientnet_mini")


@pytest.fixture(scope="module")
def quantised(mini: Bundle, cells: np.ndarray) -> Bundle:
    return quantise(mini, cells)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["efficientnet_mini", "deep_efficientnet", "resnet18"])
def test_eight_bits_say_nearly_the_same(model: str, cells: np.ndarray, mini: Bundle) -> None:
    whole = mini if model == "efficientnet_mini" else export_run(model)
    found = quantise(whole, cells, least_agreement=0.0)  # one that has learnt nothing is never sure
    assert (found.card.precision, whole.card.precision) == ("int8", "fp32")
    assert found.card.temperature == 1.0
    ours, theirs = (Classifier(bundle).outputs(cells) for bundle in (found, whole))
    for name in ("logits", "features", "class_map", "style_statistics"):
        given, expected = getattr(ours, name), getattr(theirs, name)
        error = np.abs(given - expected).mean()
        assert 0 < error < 0.1 * np.abs(expected).mean(), name
    # the logits still are the means of the maps and a bias
    bias = ours.logits - ours.class_map.mean(axis=(2, 3))
    assert bias == pytest.approx(np.broadcast_to(bias[0], bias.shape), abs=1e-4)


@pytest.mark.slow
def test_it_computes_in_integers_and_is_smaller(mini: Bundle, quantised: Bundle) -> None:
    found = quantised
    assert len(found.model) < 0.45 * len(mini.model)
    graph = onnx.load_from_string(found.model).graph
    weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    large = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(np.prod(t.dims) for t in weights) > 0.9 * mini_weights(mini)
    assert max(np.prod(t.dims) for t in large) <= 8 * 320  # the last layer


def mini_weights(mini: Bundle) -> int:
    graph = onnx.load_from_string(mini.model).graph
    return sum(int(np.prod(t.dims)) for t in graph.initializer if len(t.dims) == 4)


def test_no_two_neighbours_overflow(quantised: Bundle) -> None:
    """255 times the sum of any two that are added up in sixteen bits stays within them."""
    graph = onnx.load_from_string(quantised.model).graph
    checked = 0
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT8 or len(tensor.dims) != 4:
            continue
        weight = numpy_helper.to_array(tensor).astype(int)
        if weight.shape[1] == 1:
            continue  # depthwise: not multiplied as matrices
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        for first in range(0, rows.shape[1] - 1, 2):
            sums = rows[:, first] + rows[:, first + 1]
            assert 255 * sums.min() >= -32768
            assert 255 * sums.max() <= 32767
        assert np.abs(rows).max() > 90  # and the range is used
        checked += 1
    assert checked > 20


@pytest.mark.slow
def test_what_does_not_bear_it_is_refused(
    mini: Bundle, cells: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = iter([np.zeros(100, dtype=int), np.r_[np.zeros(98, dtype=int), 1, 1]])
    monkeypatch.setattr(quantising, "_predict_classes", lambda *_: next(named))
    with pytest.raises(BundleError, match=r"only 98\.0% of 24 images are predicted as before"):
        quantise(mini, cells)


def test_another_beginning_is_refused(mini: Bundle, cells: np.ndarray) -> None:
    proto = onnx.load_from_string(mini.model)
    next(node for node in proto.graph.node if node.op_type == "Sub").op_type = "Add"
    with pytest.raises(BundleError, match="does not begin with a normalisation"):
        quantise(replace(mini, model=proto.SerializeToString()), cells)


@pytest.mark.slow
def test_calibrate_with_eight_bits(
    mini: Bundle, drawn_cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantising, "AGREED", 0.0)
    shrink(drawn_cells, tmp_path / "cells", 64)
    write_bundle(mini, tmp_path / "mini")
    words = ["calibrate", tmp_path / "cells", "--int8", "--out", tmp_path / "out"]
    words += ["--bundle", tmp_path / "mini"]
    assert app([str(word) for word in words], result_action="return_value") == 0
    found = read_bundle(tmp_path / "out")
    assert found.card.precision == "int8"
    assert found.card.uncertainty is not None
    assert found.card.temperature != 1.0
    prediction = Classifier(found).predict(str(next((tmp_path / "cells").rglob("*.png"))))[0]
    assert prediction.uncertainty is not None
    again = [str(word) for word in (*words[:-1], tmp_path / "out", "--force")]
    with pytest.raises(BundleError, match="in eight bits already"):
        app(again, result_action="return_value")
