"""Bundles: export with its parity gate, reading, and the Classifier on top."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load, save

import hemascope.bundle.export as exporting
from drawn import draw_cell
from hemascope import BLOOD_CELLS, Classifier, InputSpec
from hemascope.bundle.bundle import Bundle, pretrained_folder, read_bundle, write_bundle
from hemascope.bundle.card import OUTPUTS, OUTPUTS_OF_FORMAT_1, Card, read_card
from hemascope.bundle.engine import ModelOutputs
from hemascope.bundle.export import draw_sample, export
from hemascope.classes import ClassSet
from hemascope.data.augment import to_images
from hemascope.errors import BundleError
from hemascope.files import sha256_of
from hemascope.inference.explain import evidence, overlay
from hemascope.models import MODELS, create_model
from hemascope.models.network import NetworkOutputs
from hemascope.predictions import Prediction
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
    return export(create_model("efficientnet_lite"), card_of(BLOOD_CELLS), draw_sample(SPEC))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "simple_cnn"])
def test_exported_outputs_are_torchs(name: str) -> None:
    classes = ClassSet.from_names(("a", "b", "c"))
    network = create_model(name, 3)
    classifier = Classifier(export(network, card_of(classes), draw_sample(SPEC)))
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network.outputs(to_images(torch.from_numpy(images)))
    for ours, theirs in zip(classifier.outputs(images), expected, strict=True):
        assert ours == pytest.approx(theirs.numpy(), abs=1e-3)


def test_nothing_is_exported_that_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model("efficientnet_lite")
    original = exporting._onnx

    def altered(network: torch.nn.Module, size: int) -> bytes:
        model = original(network, size)  # type: ignore[arg-type]
        with torch.no_grad():
            network.head.bias += 0.01
        return model

    monkeypatch.setattr(exporting, "_onnx", altered)
    with pytest.raises(BundleError, match="logits differ from torch's"):
        export(network, card_of(BLOOD_CELLS), draw_sample(SPEC))


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
    predictions = classifier.predict([path, str(path), content, image, np.asarray(image)])
    assert len({prediction.label for prediction in predictions}) == 1
    for prediction in predictions[1:]:
        assert prediction.probabilities == pytest.approx(predictions[0].probabilities, abs=1e-6)
    assert classifier.predict(image)[0].probabilities == pytest.approx(
        predictions[0].probabilities, abs=1e-6
    )
    assert [prediction.image_id for prediction in predictions] == [
        str(path),
        str(path),
        None,
        None,
        None,
    ]


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
    predictions = Classifier(bundle).predict(
        [good, tmp_path / "text.png", good, tmp_path / "none.png"]
    )
    assert [prediction.status for prediction in predictions] == [
        "ok",
        "not an image in a known format",
        "ok",
        "no such file",
    ]
    assert predictions[1].label is None
    assert predictions[0].probabilities == pytest.approx(predictions[2].probabilities)


def test_temperature_is_that_of_the_card(bundle: Bundle) -> None:
    image = draw_cell("basophil", seed=1)
    plain = Classifier(bundle)
    cool = Classifier(replace(bundle, card=replace(bundle.card, temperature=5.0)))
    logits = plain.outputs(SPEC.apply(image)[None]).logits
    assert list(cool.predict(image)[0].probabilities.values()) == pytest.approx(
        softmax(logits, 5.0)[0].tolist()
    )


def test_class_maps_average_to_the_logits(bundle: Bundle) -> None:
    scores = Classifier(bundle).outputs(draw_sample(SPEC))
    bias = scores.logits - scores.class_map.mean((2, 3))
    assert bias == pytest.approx(np.broadcast_to(bias[:1], bias.shape), abs=1e-4)


def test_a_prediction_survives_json(bundle: Bundle) -> None:
    (prediction,) = Classifier(bundle).predict(draw_cell("eosinophil", seed=1))
    assert from_json(to_json(replace(prediction, class_map=None)), Prediction) == prediction


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
    assert NetworkOutputs._fields == ModelOutputs._fields == OUTPUTS


def test_the_bundle_that_comes_with_the_package() -> None:
    bundle = read_bundle()
    assert bundle.card.classes.names == BLOOD_CELLS.names
    assert bundle.card.architecture == "efficientnet_mini"
    assert bundle.card.parameters == 739_816
    for folder, most in (
        (pretrained_folder(), 8_000_000),
        (pretrained_folder() / "fallback", 21_000_000),
    ):
        assert sum(path.stat().st_size for path in folder.glob("*.*")) <= most
    assert "research use only" in bundle.card.intended_use.lower()
    figure = bundle.card.metrics[-1].result
    assert figure.n == 1000
    assert figure.value is not None
    assert figure.value >= 0.98


def test_images_larger_than_a_thumbnail_are_not_altered(bundle: Bundle) -> None:
    image = Image.new("RGB", (50, 30), "red")
    Classifier(bundle).predict([image])
    assert image.size == (50, 30)


def test_a_bundle_of_format_1_is_still_read(tmp_path: Path) -> None:
    """As the words of its card were, with arrays in it, and its folder for the other network."""

    def write_in_old_words(bundle: Bundle, folder: Path) -> None:
        card = json.loads(to_json(bundle.card))
        detector = card["uncertainty"].pop("ood_detector")
        detector["texture"] = detector.pop("style")
        detector["texture_limit"] = detector.pop("style_limit")
        card["trust"] = card.pop("uncertainty") | {"unlike": detector}
        card["figures"] = card.pop("metrics")
        card["elsewhere_sha256"] = card.pop("fallback_sha256")
        del card["outputs"]  # format 1 had other names for them
        folder.mkdir()
        (folder / "card.json").write_text(json.dumps(card | {"format": 1}))
        (folder / "model.onnx").write_bytes(bundle.model)

    new = read_bundle()
    assert new.fallback is not None
    write_in_old_words(new, tmp_path / "old")
    write_in_old_words(new.fallback, tmp_path / "old" / "elsewhere")
    old = read_bundle(tmp_path / "old")
    assert old.fallback is not None
    for ours, theirs in ((old.card, new.card), (old.fallback.card, new.fallback.card)):
        ours = replace(ours)  # with the fields that the card of the file leaves to their defaults
        assert to_json(ours) == to_json(replace(theirs, outputs=OUTPUTS_OF_FORMAT_1))


def test_the_cards_arrays_lie_beside_it_and_come_back(tmp_path: Path) -> None:
    shipped = read_bundle()
    assert shipped.card.uncertainty is not None
    laboratories = shipped.card.uncertainty.laboratories
    assert laboratories is not None
    write_bundle(replace(shipped, fallback=None), tmp_path)
    assert (tmp_path / "card.json").stat().st_size < 20_000
    assert "float32" not in (tmp_path / "card.json").read_text()
    assert to_json(read_card(tmp_path)) == to_json(shipped.card)
    arrays = load((tmp_path / "uncertainty.safetensors").read_bytes())
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes.pop("morphology.attributes.0.weight")[1] == 320  # one per feature
    assert {n: shape for n, shape in shapes.items() if not n.startswith("morphology.")} == {
        "uncertainty.ood_detector.directions.means": (8, 320),
        "uncertainty.ood_detector.style.means": (8, 48),
        "uncertainty.ood_detector.style.whiten": (48, 48),
        "uncertainty.laboratories.means": (len(laboratories.laboratory_of), 48),
        "uncertainty.laboratories.whiten": (48, 48),
        "known_features.means": (8, 320),
        "known_features.axes": (16, 320),
    }


def test_other_arrays_than_the_cards_are_refused(tmp_path: Path) -> None:
    write_bundle(replace(read_bundle(), fallback=None), tmp_path)
    path = tmp_path / "uncertainty.safetensors"
    arrays = load(path.read_bytes())
    path.write_bytes(save({name: array + 1 for name, array in arrays.items()}))
    with pytest.raises(BundleError, match=r"is not the file that card\.json describes"):
        read_card(tmp_path)
    card = json.loads((tmp_path / "card.json").read_bytes())
    for content, error in (
        (b"nothing", r"uncertainty\.safetensors: "),
        (save({"another": arrays.popitem()[1]}), "the array .* is missing, or of another shape"),
    ):
        path.write_bytes(content)
        altered = card | {"uncertainty_sha256": sha256_of(content)}
        (tmp_path / "card.json").write_text(json.dumps(altered))
        with pytest.raises(BundleError, match=error):
            read_card(tmp_path)
    path.unlink()
    with pytest.raises(BundleError, match=r"cannot read uncertainty\.safetensors"):
        read_bundle(tmp_path)


def test_a_bundle_without_arrays_leaves_none_of_an_earlier_one(
    bundle: Bundle, tmp_path: Path
) -> None:
    write_bundle(replace(read_bundle(), fallback=None), tmp_path)
    write_bundle(bundle, tmp_path)
    assert not (tmp_path / "uncertainty.safetensors").exists()
    assert read_bundle(tmp_path) == bundle
