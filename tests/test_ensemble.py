"""Several answers to one image: members of an ensemble, and views of one network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from drawn import draw_cell
from hemascope import BLOOD_CELLS, Classifier, InputSpec
from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card
from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.tta import average_maps, symmetries
from hemascope.models import create_model
from hemascope.models.ensemble import Ensemble
from hemascope.uncertainty.ensemble import disagreement

SPEC = InputSpec(64)


def bundle(*seeds: int) -> Bundle:
    networks = []
    for seed in seeds:
        torch.manual_seed(seed)
        networks.append(create_model("efficientnet_lite"))
    card = Card("test", BLOOD_CELLS, SPEC, "efficientnet_lite", 1, "", "nothing")
    network = networks[0] if len(seeds) == 1 else Ensemble(networks)
    return export(network, card, draw_sample(SPEC))


@pytest.fixture(scope="module")
def three() -> Bundle:
    return bundle(0, 1, 2)


def test_the_symmetries_are_eight_different_ones() -> None:
    image = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    views = list(symmetries(image))
    assert np.array_equal(views[0], image)
    assert len({view.tobytes() for view in views}) == 8
    assert all(
        np.array_equal(np.sort(view, axis=None), np.sort(image, axis=None)) for view in views
    )


def test_maps_are_turned_back() -> None:
    maps = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    views = [view.transpose(0, 3, 1, 2).astype(float) for view in symmetries(maps)]
    assert np.allclose(average_maps(views), maps.transpose(0, 3, 1, 2))


def test_members_who_are_sure_of_different_things() -> None:
    apart = np.array([[[50.0, 0.0], [0.0, 50.0]]])
    assert disagreement(apart) == pytest.approx([math.log(2)])
    alike = np.array([[[1.0, 0.5], [1.0, 0.5]]])
    assert disagreement(alike) == pytest.approx([0.0])


def test_a_turned_picture_gets_the_same_answer() -> None:
    cell = np.asarray(draw_cell("ig", 3))
    classifier = Classifier(tta=True)
    whole, turned = classifier.predict([cell, np.rot90(cell)], class_maps=True)
    plain, plain_turned = Classifier().predict([cell, np.rot90(cell)])
    assert whole.probabilities == pytest.approx(turned.probabilities, abs=1e-4)
    assert plain.probabilities != pytest.approx(plain_turned.probabilities, abs=1e-4)
    assert whole.class_map is not None
    assert turned.class_map is not None
    rounding = 0.02 * np.abs(turned.class_map).max()  # of eight bits
    expected = np.rot90(whole.class_map, axes=(1, 2))
    assert np.allclose(expected, turned.class_map, rtol=0, atol=rounding)
    assert not np.allclose(whole.class_map, turned.class_map, rtol=0, atol=10 * rounding)
    assert whole.disagreement is not None
    assert whole.disagreement > 0
    assert plain.disagreement is None


@pytest.mark.slow
def test_an_ensemble_answers_with_the_mean(three: Bundle) -> None:
    images = draw_sample(SPEC)
    found = Classifier(three).outputs(images)
    alone = [Classifier(bundle(seed)).outputs(images) for seed in (0, 1, 2)]
    assert found.logits == pytest.approx(np.mean([one.logits for one in alone], axis=0), abs=1e-4)
    maps = np.mean([one.class_map for one in alone], axis=0)
    assert found.class_map == pytest.approx(maps, abs=1e-3)
    assert found.members.shape == (8, 3, 8)
    for member, one in enumerate(alone):
        assert found.members[:, member] == pytest.approx(one.logits, abs=1e-4)
    (prediction,) = Classifier(three).predict(draw_cell("ig", 0))
    assert prediction.disagreement == pytest.approx(
        disagreement(Classifier(three).outputs(SPEC.apply(draw_cell("ig", 0))[None]).members)[0]
    )


def test_members_at_several_scales_share_a_map() -> None:
    """Each place of a member's map is divided; how far the common map is off is their mean."""
    torch.manual_seed(0)
    members = [create_model("efficientnet_lite", input_upscale=times).eval() for times in (1, 1.5)]
    images = torch.rand(2, 3, 64, 64)
    ensemble = Ensemble(members)
    found = ensemble.outputs(images)
    small, large = (member.outputs(images) for member in members)
    assert (small.class_map.shape[-1], large.class_map.shape[-1]) == (4, 6)
    expected = np.kron(small.class_map.detach(), np.ones((3, 3)))
    expected = (expected + np.kron(large.class_map.detach(), np.ones((2, 2)))) / 2
    assert found.class_map.detach().numpy() == pytest.approx(expected, abs=1e-5)
    assert ensemble.map_offset_at(64) == pytest.approx((3 * 0.5 + 2 * 0.5) / 2)


def test_maps_are_put_right_before_they_are_turned_back() -> None:
    """A map that lies one place too far right and below, of a image with one bright place."""
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    image[0, 2, 5] = 255

    def looked_at(view: np.ndarray) -> np.ndarray:
        moved = np.zeros((1, 1, 8, 8))
        moved[0, 0, 1:, 1:] = view[0, :-1, :-1, 0]
        return moved

    mean = average_maps([looked_at(view) for view in symmetries(image)], 1.0)
    assert mean[0, 0] == pytest.approx(image[0, :, :, 0])
    half = average_maps([looked_at(view) for view in symmetries(image)], 0.5)
    assert half.max() < 255
