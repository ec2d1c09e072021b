"""Bundles from strangers: damaged, or made to harm whoever reads or runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hemascope import BLOOD_CELLS, Classifier
from hemascope.bundle.bundle import (
    Bundle,
    add_fallback,
    pretrained_folder,
    read_bundle,
    replace_model,
    write_bundle,
)
from hemascope.bundle.card import read_card
from hemascope.bundle.engine import Engine
from hemascope.bundle.export import _onnx, _store_in_half_precision, draw_sample
from hemascope.bundle.graph import read_graph
from hemascope.bundle.graph_check import check_graph
from hemascope.bundle.graph_shapes import RULES, infer_shapes
from hemascope.bundle.session import Session
from hemascope.errors import BundleError
from hemascope.models import MODELS, create_model
from hemascope.models.ensemble import Ensemble
from hemascope.post_training.quantise import _quantise_graph
from hemascope.preprocess import InputSpec

S = 64


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


# The card


def altered_card(folder: Path, path: str, value: object) -> None:
    """The shipped card with another value at a path; without it where the value is ...."""
    shutil.copy(pretrained_folder() / "uncertainty.safetensors", folder)
    card: Any = json.loads((pretrained_folder() / "card.json").read_bytes())
    *outer, last = path.split(".")
    inner = card
    for key in outer:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    (folder / "card.json").write_text(json.dumps(card))


UNCERTAINTY, DETECTOR = "uncertainty", "uncertainty.ood_detector"
WRONG_VALUES: list[tuple[str, object]] = [
    *(("temperature", value) for value in (0, -1, 1e300, 1e-300, float("nan"), 10**400, "1")),
    *(("map_offset", value) for value in (-1, 1e9, float("inf"), None)),
    *(("precision", value) for value in ("", "int4", 8)),
    *(("outputs", value) for value in ([], ["logits"] * 5, "logits", [1, 2, 3, 4, 5])),
    *(("parameters", value) for value in (-1, 10**30, 1.5)),
    *(("classes", value) for value in ({"classes": []}, [], "a")),
    *(("classes.classes", value) for value in ([], [{"name": "a"}], [1, 2])),
    *((f"input.{part}", value) for part in ("size", "crop", "microns") for value in (-1, 1e9, [])),
    ("name", " "),
    ("recipe", {"a": [float("inf")]}),
    ("metrics.0.result.n", -1),
    ("metrics.0.result.successes", 2000),
    ("metrics.0.result.value", 1.5),
    ("uncertainty_sha256", 5),
    *(
        (f"{UNCERTAINTY}.{part}", value)
        for part in ("set_threshold", "least_probability")
        for value in (-0.1, 1.1, None, "x", ...)
    ),
    *((f"{UNCERTAINTY}.class_thresholds", value) for value in ([], [0.5], [-0.5] * 8, None, ...)),
    (f"{UNCERTAINTY}.images", 0),
    (f"{UNCERTAINTY}.quality.sharpness", -1),
    (f"{UNCERTAINTY}.quality.cell_contrast", 100),
    (f"{UNCERTAINTY}.quality.edge_contact", ...),
    *((f"{DETECTOR}.{part}", ...) for part in ("mean_limit", "style_limit", "centre", "style")),
    (f"{DETECTOR}.mean_limit", -1),
    (f"{DETECTOR}.centre", [0]),
    (f"{DETECTOR}.spread", [0, 1]),
    (f"{DETECTOR}.style.whiten", {"shape": [2, 2], "tensor": [1]}),
    (f"{DETECTOR}.style.whiten", {"shape": [2, 2], "float32": "AAAA"}),
    (f"{DETECTOR}.style.whiten", {"shape": [-1, 1], "float32": "AAAAAA=="}),
    (f"{DETECTOR}.style.whiten", {"shape": [1, 1], "float32": "AAAAAA=="}),
    (f"{DETECTOR}.style.means", {"shape": [1, 1], "float32": "AADAfw=="}),  # not a number
    (f"{DETECTOR}.directions.means", {"shape": [0, 3], "float32": ""}),
    (f"{DETECTOR}.directions.means", {"shape": [9, 1], "float32": "AAAA" * 12}),
    (f"{DETECTOR}.directions.means", {"shape": [1], "float32": "AAAAAA=="}),
]


@pytest.mark.parametrize(("path", "value"), WRONG_VALUES)
def test_a_wrong_value_is_named(path: str, value: object, tmp_path: Path) -> None:
    altered_card(tmp_path, path, value)
    with pytest.raises(BundleError) as caught:
        read_card(tmp_path)
    assert path.rpartition(".")[2] in str(caught.value) or path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"format": 2, "recipe": ' + "[" * 100_000 + "]" * 100_000 + "}", "recipe holds values"),
        ("[" * 100_000, "holds values within values"),
        ('{"format": 2, "name": "' + "[" * 50 + '"}', "missing required field"),
        ('{"format": 1, "name": "\\ud800"}', "card.json: "),
        ('{"format": 1, "trust": {"unlike": 5}}', "ood_detector"),
        ('{"format": true}', "format True is not known"),
        ('{"format": [2]}', "is not known"),
        ("[]", "not a card"),
        ("", "not valid JSON"),
    ],
)
def test_other_json_is_refused_in_one_sentence(text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(BundleError, match=error):
        read_card(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_or_a_huge_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(BundleError, match="a device or a pipe"):
        read_card(tmp_path)
    (tmp_path / "card.json").unlink()
    with (tmp_path / "card.json").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(BundleError, match="such a file has at most"):
        read_card(tmp_path)


def test_a_card_that_could_not_be_read_is_not_written(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="temperature must be between"):
        write_bundle(replace(tiny, card=replace(tiny.card, temperature=0.0)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# The fallback model


def test_a_bundle_that_holds_itself_ends_at_the_second_level(tmp_path: Path) -> None:
    shipped = replace(read_bundle(), fallback=None)
    card = replace(shipped.card, fallback_sha256=shipped.card.model_sha256)
    write_bundle(replace(shipped, card=card), tmp_path)
    (tmp_path / "fallback").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="fallback model of its own"):
        read_bundle(tmp_path)


def test_a_fallback_models_own_fallback_is_left_out(tmp_path: Path) -> None:
    shipped = read_bundle()
    assert shipped.fallback is not None
    write_bundle(add_fallback(shipped.fallback, shipped), tmp_path)
    found = read_bundle(tmp_path)
    assert found.fallback is not None
    assert found.fallback.fallback is None


# The graph


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None) -> bytes:
    """A model of these nodes, after one that turns `images` into `x` (N,S,S,3) float32."""
    cast = helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)
    tensors = [numpy_helper.from_array(v, name) for name, v in (constants or {}).items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", S, S, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([cast, *nodes], "g", [images], [y], tensors)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def endless_loop() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, [])],
    )
    return graph_of([helper.make_node("Loop", ["", "yes"], [], body=body)], {"yes": np.array(True)})


def hidden_graph() -> bytes:
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "inner", [], [])
    return graph_of([helper.make_node("Relu", ["x"], ["y"], body=inner)])


def constant_of_8_gb() -> bytes:
    shape = np.array([2**31], np.int64)
    return graph_of([helper.make_node("ConstantOfShape", ["shape"], ["y"])], {"shape": shape})


def external_data(inside_node: bool) -> bytes:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    if inside_node:
        return graph_of([helper.make_node("Constant", [], ["y"], value=tensor)])
    model = onnx.load_from_string(graph_of([helper.make_node("Add", ["x", "w"], ["y"])]))
    model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def claimed_size() -> bytes:
    model = onnx.load_from_string(graph_of([helper.make_node("Identity", ["w"], ["y"])]))
    model.graph.initializer.append(TensorProto(name="w", dims=[2**16, 2**12], data_type=1))
    return bytes(model.SerializeToString())


def doubled() -> bytes:
    names = ["x", *(f"x{step}" for step in range(40)), "y"]
    return graph_of([helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)])


def outer_product() -> bytes:
    row, column = np.ones((1, 2**16), np.float32), np.ones((2**16, 1), np.float32)
    nodes = [helper.make_node("Mul", ["row", "column"], ["y"])]
    return graph_of(nodes, {"row": row, "column": column})


def grown_with_the_batch() -> bytes:
    """Of one image one value, of N images N to the power of 16."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["v0"], keepdims=0)]
    for step in range(4):
        column, square = f"column{step}", f"square{step}"
        nodes += [
            helper.make_node("Unsqueeze", [f"v{step}", "last"], [column]),
            helper.make_node("Mul", [f"v{step}", column], [square]),
            helper.make_node("Reshape", [square, "flat"], [f"v{step + 1}"]),
        ]
    nodes.append(helper.make_node("Identity", ["v4"], ["y"]))
    names = {"axes": [1, 2, 3], "last": [1], "flat": [-1]}
    return graph_of(nodes, {name: np.array(v, np.int64) for name, v in names.items()})


def resized() -> bytes:
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])]
    return graph_of(nodes, {"sizes": np.array([1, 2**16, 2**16, 3], np.int64)})


def padded() -> bytes:
    kernel = np.ones((1, S, 1, 1), np.float32)
    pads = [2**20, 2**20, 0, 0]
    return graph_of([helper.make_node("Conv", ["x", "k"], ["y"], pads=pads)], {"k": kernel})


def reshaped_by_pixels() -> bytes:
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=TensorProto.INT64)]
    return graph_of([*nodes, helper.make_node("Reshape", ["x", "z"], ["y"])])


def custom_domain() -> bytes:
    return graph_of([helper.make_node("Relu", ["x"], ["y"], domain="evil.example")])


def function() -> bytes:
    model = onnx.load_from_string(graph_of([helper.make_node("Relu", ["x"], ["y"])]))
    opset = [helper.make_opsetid("", 18)]
    nodes = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], nodes, opset))
    return bytes(model.SerializeToString())


HOSTILE: list[tuple[Callable[[], bytes], str]] = [
    (endless_loop, "graphs inside nodes"),
    (hidden_graph, "graphs inside nodes"),
    (constant_of_8_gb, "operator 'ConstantOfShape', which no export writes"),
    (custom_domain, r"operator of 'evil\.example'"),
    (function, "functions"),
    (lambda: external_data(False), "in another file"),
    (lambda: external_data(True), "in another file"),
    (claimed_size, "is not in the file"),
    (doubled, "a node Concat makes"),
    (outer_product, "a node Mul makes"),
    (grown_with_the_batch, "a node Mul makes .* of 64 images"),
    (resized, "a node Resize makes"),
    (padded, "a node Conv makes"),
    (reshaped_by_pixels, "a node Reshape makes is not known"),
    (lambda: b"", "damaged"),
    (lambda: b"\xff" * 100, "damaged"),
    (lambda: b"\x08\x01" * 2_000_000, "too many parts"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "error"), HOSTILE)
def test_a_hostile_graph_is_refused(make: Callable[[], bytes], error: str, tiny: Bundle) -> None:
    with pytest.raises(BundleError, match=error) as caught:
        Engine(replace_model(tiny, make()))
    assert "\n" not in str(caught.value)


def test_a_field_that_comes_twice_is_read_twice(tiny: Bundle) -> None:
    """Readers of protobuf join the two: an operator is hidden in the second part."""
    joined = tiny.model + constant_of_8_gb()
    assert "ConstantOfShape" in {node.op_type for node in onnx.load_from_string(joined).graph.node}
    with pytest.raises(BundleError, match="ConstantOfShape"):
        check_graph(joined, S)


@cache
def plain(name: str) -> bytes:
    torch.manual_seed(0)
    return _onnx(create_model(name), S)


@cache
def with_other_settings(name: str) -> bytes:
    torch.manual_seed(0)
    settings = {"squeeze_excite": False, "normalise_stain": True, "input_upscale": 1.5}
    return _onnx(create_model(name, **settings), S)


def exported() -> dict[str, Callable[[], bytes]]:
    """What export and calibrate write: every model, its settings, ensembles, half and int8."""
    found: dict[str, Callable[[], bytes]] = {}
    for name in MODELS:
        found[name] = lambda name=name: plain(name)
        found[f"{name}, int8"] = lambda name=name: _quantise_graph(
            plain(name), draw_sample(InputSpec(S))
        )
        found[f"{name}, other settings"] = lambda name=name: with_other_settings(name)
    found["ensemble, half"] = lambda: _store_in_half_precision(
        _onnx(
            Ensemble(
                [create_model("efficientnet_lite"), create_model("resnet18", input_upscale=2)]
            ),
            S,
        )
    )
    return found


EXPORTED = exported()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_what_we_write_is_accepted_and_its_shapes_are_right(name: str) -> None:
    """Against the sides of what onnxruntime makes: of the outputs, and of tensors in between."""
    torch.manual_seed(0)
    model = EXPORTED[name]()
    check_graph(model, S)
    shapes = {
        output: shape
        for node, shape in infer_shapes(read_graph(model), (2, S, S, 3))
        for output in node.outputs
    }
    proto = onnx.load_from_string(model)
    outputs = {output.name for output in proto.graph.output}
    asked = sorted({*list(shapes)[::7]} - outputs)
    proto.graph.output.extend(onnx.ValueInfoProto(name=output) for output in asked)
    session = Session(proto.SerializeToString(), 1)
    asked += sorted(outputs)
    made = session.run(asked, {"images": np.zeros((2, S, S, 3), np.uint8)})
    assert {name: array.shape for name, array in zip(asked, made, strict=True)} == {
        name: shapes[name] for name in asked
    }


@pytest.mark.slow
def test_only_what_we_write_is_allowed() -> None:
    """Each operator on the list is in a shipped graph or in an export."""
    models = [write(name) for write in (plain, with_other_settings) for name in MODELS]
    shipped = read_bundle()
    assert shipped.fallback is not None
    models += [shipped.model, shipped.fallback.model]
    written = {
        name for model in models for node in read_graph(model).nodes for name in node.op_types
    }
    assert written == set(RULES)


# What a graph gives


def with_weights(bundle: Bundle, value: float) -> Bundle:
    """The bundle with a bias of this value in its last layer."""
    proto = onnx.load_from_string(bundle.model)
    (last,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == last.input[2])
    values = np.full(tuple(bias.dims), value, np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return replace_model(bundle, bytes(proto.SerializeToString()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_an_error(value: float, tiny: Bundle) -> None:
    classifier = Classifier(with_weights(tiny, value))
    with pytest.raises(BundleError, match="'tiny' gave logits that are not finite"):
        classifier.predict(np.zeros((S, S, 3), np.uint8))


def test_a_card_of_another_networks_features_is_an_error(tiny: Bundle) -> None:
    shipped = read_bundle().card
    card = replace(tiny.card, classes=BLOOD_CELLS, uncertainty=shipped.uncertainty)
    torch.manual_seed(0)
    model = _onnx(create_model("efficientnet_lite"), S)
    with pytest.raises(BundleError, match="gave features of shape"):
        Classifier(Bundle(card, model)).predict(np.zeros((S, S, 3), np.uint8))


def test_onnxruntime_says_nothing_in_the_terminal(tiny: Bundle, tmp_path: Path) -> None:
    """For a graph that is damaged, and for one that fails when it is run."""
    shape = np.array([5, 7], np.int64)
    fails = graph_of([helper.make_node("Reshape", ["x", "shape"], ["y"])], {"shape": shape})
    (tmp_path / "fails.onnx").write_bytes(fails)
    model = bytearray(tiny.model)
    for place in range(2000, len(model), 5000):
        model[place] ^= 0xFF
    (tmp_path / "damaged.onnx").write_bytes(bytes(model))
    code = f"""
import pathlib, numpy as np
from hemascope.bundle.session import Session
for name in ("fails", "damaged"):
    try:
        session = Session(pathlib.Path(r"{tmp_path}", name + ".onnx").read_bytes(), 1)
        session.run(["y"], {{"images": np.zeros((1, {S}, {S}, 3), np.uint8)}})
    except Exception as error:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n" * 2
    assert done.stderr == ""
