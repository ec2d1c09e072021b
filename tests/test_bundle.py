"""Bundles: export with its parity gate, reading, and the Classifier on top."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hemascope.bundle.export as exporting
from hemascope import BLOOD_CELLS, Classifier, InputSpec
from hemascope.bundle.bundle import Bundle, BundleError, Card, pretrained, read_bundle, write_bundle
from hemascope.bundle.engine import Scores
from hemascope.bundle.export import drawn_sample, export
from hemascope.classes import ClassSet
from hemascope.data.augment import to_images
from hemascope.data.synthetic import draw_cell
from hemascope.inference.explain import evidence, overlay
from hemascope.models import MODELS, build_model
from hemascope.models.network import Outputs
from hemascope.records import Prediction
from hemascope.serialization import from_json, to_json
from hemascope.uncertainty.temperature import softmax

SPEC = InputSpec(64, 0.8)


def card_of(classes: ClassSet, spec: InputSpec = SPEC) -> Card:
    return Card(
        name="drawn",
        classes=classes,
        input=spec,
        architecture="efficientnet_lite",
        parameters=1,
        model_sha256="",
        training_data="nothing",
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return export(build_model("efficientnet_lite"), card_of(BLOOD_CELLS), drawn_sample(SPEC))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "simple_cnn"])
def test_exported_outputs_are_torchs(name: str) -> None:
    classes = ClassSet.from_names(("a", "b", "c"))
    network = build_model(name, 3)
    classifier = Classifier(export(network, card_of(classes), drawn_sample(SPEC)))
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network.outputs(to_images(torch.from_numpy(images)))
    for ours, theirs in zip(classifier.scores(images), expected, strict=True):
        assert ours == pytest.approx(theirs.numpy(), abs=1e-3)


def test_nothing_is_exported_that_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model("efficientnet_lite")
    original = exporting._onnx

    def altered(network: torch.nn.Module, size: int) -> bytes:
        model = original(network, size)  # type: ignore[arg-type]
        with torch.no_grad():
            network.head.bias += 0.01
        return model

    monkeypatch.setattr(exporting, "_onnx", altered)
    with pytest.raises(BundleError, match="logits differ from torch's"):
        export(network, card_of(BLOOD_CELLS), drawn_sample(SPEC))


def test_a_bundle_survives_its_folder(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == bundle
    assert from_json(to_json(bundle.card), Card) == bundle.card


def test_any_kind_of_image_gives_the_same_answer(bundle: Bundle, tmp_path: Path) -> None:
    image = draw_cell("monocyte", seed=3, size=90)
    image.save(tmp_path / "cell.png")
    content = (tmp_path / "cell.png").read_bytes()
    classifier = Classifier(bundle)
    path = tmp_path / "cell.png"
    answers = classifier.predict([path, str(path), content, image, np.asarray(image)])
    assert len({answer.label for answer in answers}) == 1
    for answer in answers[1:]:
        assert answer.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    assert classifier.predict(image)[0].probabilities == pytest.approx(
        answers[0].probabilities, abs=1e-6
    )
    assert [answer.path for answer in answers] == [str(path), str(path), None, None, None]


def test_batches_keep_order_and_answers(bundle: Bundle) -> None:
    images = [draw_cell("platelet", seed, size=64) for seed in range(11)]
    classifier = Classifier(bundle, threads=2)
    alone = [classifier.predict(image)[0] for image in images]
    together = list(classifier.stream(iter(images), batch_size=4))
    for one, other in zip(alone, together, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_file_that_cannot_be_read_costs_its_own_answer(bundle: Bundle, tmp_path: Path) -> None:
    good = draw_cell("ig", seed=1, size=64)
    (tmp_path / "text.png").write_text("not an image")
    answers = Classifier(bundle).predict([good, tmp_path / "text.png", good, tmp_path / "none.png"])
    assert [answer.status for answer in answers] == [
        "ok",
        "not an image in a known format",
        "ok",
        "no such file",
    ]
    assert answers[1].label is None
    assert answers[0].probabilities == pytest.approx(answers[2].probabilities)


def test_temperature_is_that_of_the_card(bundle: Bundle) -> None:
    image = draw_cell("basophil", seed=1)
    plain = Classifier(bundle)
    cool = Classifier(replace(bundle, card=replace(bundle.card, temperature=5.0)))
    logits = plain.scores(SPEC.apply(image)[None]).logits
    assert list(cool.predict(image)[0].probabilities.values()) == pytest.approx(
        softmax(logits, 5.0)[0].tolist()
    )


def test_class_maps_average_to_the_logits(bundle: Bundle) -> None:
    scores = Classifier(bundle).scores(drawn_sample(SPEC))
    bias = scores.logits - scores.class_map.mean((2, 3))
    assert bias == pytest.approx(np.broadcast_to(bias[:1], bias.shape), abs=1e-4)


def test_a_prediction_survives_json(bundle: Bundle) -> None:
    (answer,) = Classifier(bundle).predict(draw_cell("eosinophil", seed=1))
    assert from_json(to_json(replace(answer, class_map=None)), Prediction) == answer


def test_overlay_colours_only_where_the_evidence_is() -> None:
    image = np.full((40, 40, 3), 200, dtype=np.uint8)
    class_map = np.full((4, 4), -1.0, dtype=np.float32)
    class_map[0, 0] = 2.0
    heated = overlay(image, class_map)
    assert np.array_equal(heated[25:, 25:], image[25:, 25:])
    assert not np.array_equal(heated[:8, :8], image[:8, :8])
    assert evidence(class_map).max() == 1.0
    assert np.array_equal(overlay(image, -np.abs(class_map)), image)


def test_outputs_are_named_as_the_graph_names_them() -> None:
    assert Outputs._fields == Scores._fields


def test_the_bundle_that_comes_with_the_package() -> None:
    bundle = read_bundle()
    assert bundle.card.classes.names == BLOOD_CELLS.names
    assert bundle.card.architecture == "efficientnet_mini"
    assert bundle.card.parameters == 739_816
    for folder, most in ((pretrained(), 8_000_000), (pretrained() / "elsewhere", 21_000_000)):
        assert sum(path.stat().st_size for path in folder.glob("*.*")) <= most
    assert "research use only" in bundle.card.intended_use.lower()
    figure = bundle.card.figures[-1].result
    assert figure.n == 1000
    assert figure.value is not None
    assert figure.value >= 0.98


def test_images_larger_than_a_thumbnail_are_not_altered(bundle: Bundle) -> None:
    image = Image.new("RGB", (50, 30), "red")
    Classifier(bundle).predict([image])
    assert image.size == (50, 30)
