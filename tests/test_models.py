"""Networks: the study's parameter counts, shapes, class maps against Grad-CAM, switches."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from hemascope.data.augment import POLICIES
from hemascope.models import MODELS, create_model
from hemascope.models.blocks import SqueezeExcite, StochasticDepth
from hemascope.models.network import CellNetwork, LightNormalisation, StainNormalisation, mix_styles
from hemascope.training.recipe import Recipe

PARAMETERS = {
    "simple_cnn": 26_084_104,
    "resnet18": 11_180_616,
    "deep_efficientnet": 1_840_228,
    "deep_efficientnet_printed": 564_664,
}
ALL = sorted(MODELS)


def count(network: CellNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_are_those_the_study_reports(name: str, parameters: int) -> None:
    assert count(create_model(name)) == parameters


def test_the_small_one_has_about_what_the_study_reports() -> None:
    assert 545_000 <= count(create_model("efficientnet_lite")) <= 555_000


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [64, 90])
def test_outputs_agree_with_the_forward_pass(name: str, size: int) -> None:
    network = create_model(name, num_classes=3).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits, features, class_map, texture, members = network.outputs(images)
        assert torch.allclose(logits, network(images), atol=1e-5)
        assert torch.allclose(logits, network.head(features), atol=1e-5)
    assert torch.equal(members, logits[:, None])
    assert class_map.shape[:2] == (2, 3)
    assert class_map.shape[2] == class_map.shape[3]
    early, _ = network.stages(images)
    assert 4 * early.shape[2] >= size
    expected = torch.cat([early.mean((2, 3)), early.std((2, 3), correction=0)], dim=1)
    assert torch.allclose(texture, expected, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if name != "simple_cnn"])
def test_class_map_averages_to_the_logit(name: str) -> None:
    network = create_model(name, num_classes=3).eval()
    logits, _, class_map, *_ = network.outputs(torch.rand(2, 3, 64, 64))
    assert torch.allclose(class_map.mean((2, 3)) + network.head.bias, logits, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_class_map_is_grad_cam(name: str) -> None:
    """Selvaraju et al.: channels weighted by the mean gradient; here by the gradient itself
    where a hidden layer makes it differ from place to place (HiResCAM)."""
    network = create_model(name, num_classes=4).eval()
    images = torch.rand(2, 3, 64, 64)
    early, maps = (maps.detach().requires_grad_() for maps in network.stages(images))
    network.stages = lambda _: (early, maps)  # type: ignore[method-assign]
    ours = network.outputs(images).class_map
    for c in range(4):
        (gradient,) = torch.autograd.grad(network(images)[:, c].sum(), maps)
        if name != "simple_cnn":
            gradient = gradient.mean((2, 3), keepdim=True)
        theirs = (gradient * maps).sum(1) * maps.shape[2] * maps.shape[3]
        assert torch.allclose(ours[:, c], theirs, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in ALL if name != "simple_cnn"])
def test_class_map_is_a_librarys_grad_cam(name: str) -> None:
    """Captum's, without the ReLU, and with sums over places where ours has means."""
    network = create_model(name, num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64)
    ours = network.outputs(images).class_map
    indices = ours.shape[2] * ours.shape[3]
    last = list(network.maps.children())[-1]
    for c in range(3):
        theirs = LayerGradCam(network, last).attribute(images, target=c)
        assert torch.allclose(ours[:, c], theirs[:, 0] * indices, atol=1e-4)


def test_squeeze_excite_can_be_left_out() -> None:
    network = create_model("deep_efficientnet", squeeze_excite=False)
    assert not any(isinstance(module, SqueezeExcite) for module in network.modules())
    assert count(network) < PARAMETERS["deep_efficientnet"]


def test_stochastic_depth_rises_and_drops_whole_branches() -> None:
    network = create_model("deep_efficientnet", drop_path_rate=0.2)
    rates = [module.rate for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.2)
    assert rates == sorted(rates)
    drop = StochasticDepth(0.4).train()
    kept = drop(torch.ones(20_000, 1, 1, 1)).flatten()
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert kept.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(kept), kept)


def test_names_in_recipes_are_the_names_there_are() -> None:
    hints = get_type_hints(Recipe)
    assert get_args(hints["model"]) == tuple(MODELS)
    assert get_args(hints["augmentation"]) == tuple(POLICIES)


def test_unknown_names_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown model 'resnet19'"):
        create_model("resnet19")
    with pytest.raises(ValueError, match="at least two classes"):
        create_model("resnet18", num_classes=1)
    with pytest.raises(ValueError, match="drop_rate"):
        create_model("resnet18", drop_rate=1.0)


def test_normalised_stain_forgets_light_and_strength() -> None:
    """Light of another tint multiplies a image; more of a stain multiplies its densities."""
    torch.manual_seed(0)
    density = torch.rand(2, 3, 64, 64) * (torch.rand(2, 1, 64, 64) > 0.5)
    light = torch.tensor([0.9, 0.7, 0.5]).view(1, 3, 1, 1)
    strength = torch.tensor([2.0, 1.5, 1.2]).view(1, 3, 1, 1)
    normalise = StainNormalisation()
    first = normalise(torch.exp(-density))
    other = normalise(light * torch.exp(-strength * density))
    assert torch.allclose(first, other, atol=1e-4)
    assert normalise(torch.full((1, 3, 64, 64), 0.8)).min() > 0.99  # nothing is blown up


def test_normalised_light_forgets_the_light_and_keeps_the_stain() -> None:
    torch.manual_seed(0)
    density = 2 * torch.rand(2, 3, 64, 64) * (torch.rand(2, 1, 64, 64) > 0.7)
    light = torch.tensor([0.9, 0.7, 0.5]).view(1, 3, 1, 1)
    normalise = LightNormalisation()
    first = normalise(torch.exp(-density))
    assert torch.allclose(first, normalise(light * torch.exp(-density)), atol=1e-4)
    ground = torch.tensor(LightNormalisation.DENSITIES).view(1, 3, 1, 1)
    assert torch.allclose(-first.log() - ground, density, atol=1e-4)


def test_an_enlarged_picture_has_finer_maps() -> None:
    torch.manual_seed(0)
    plain = create_model("efficientnet_lite").eval()
    torch.manual_seed(0)
    enlarging = create_model("efficientnet_lite", input_upscale=1.5).eval()
    images = torch.rand(2, 3, 64, 64)
    larger = torch.nn.functional.interpolate(images, size=(96, 96), mode="bilinear")
    for found, expected in zip(enlarging.stages(images), plain.stages(larger), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    assert enlarging.feature_maps(images).shape[-1] == 6 > plain.feature_maps(images).shape[-1]


def test_stain_is_normalised_where_the_switch_says_so() -> None:
    torch.manual_seed(0)
    plain = create_model("efficientnet_lite").eval()
    torch.manual_seed(0)
    normalised = create_model("efficientnet_lite", normalise_stain=True).eval()
    assert plain.state_dict().keys() == normalised.state_dict().keys()
    images = torch.rand(2, 3, 64, 64)
    early = normalised.stages(images)[0]
    assert torch.allclose(early, plain.stages(StainNormalisation()(images))[0], rtol=1e-4)
    assert not torch.allclose(early, plain.stages(images)[0], rtol=1e-1)
    torch.manual_seed(0)
    lit = create_model("efficientnet_lite", normalise_light=True).eval()
    assert torch.allclose(
        lit.stages(images)[0], plain.stages(LightNormalisation()(images))[0], rtol=1e-4
    )
    with pytest.raises(ValueError, match="leave out normalise_light"):
        create_model("efficientnet_lite", normalise_light=True, normalise_stain=True)


def test_mixed_styles_lie_between_an_image_and_another() -> None:
    torch.manual_seed(0)
    maps = torch.randn(64, 5, 8, 8) * torch.rand(64, 5, 1, 1) + torch.randn(64, 5, 1, 1)
    assert torch.allclose(mix_styles(maps, share=0.0), maps, atol=1e-5)
    mixed = mix_styles(maps, share=1.0)
    means = mixed.mean((2, 3))
    assert (means >= maps.mean((2, 3)).min(0).values - 1e-4).all()
    assert (means <= maps.mean((2, 3)).max(0).values + 1e-4).all()
    assert not torch.allclose(means, maps.mean((2, 3)), atol=0.1)
    normal = (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True)
    mixed = (mixed - mixed.mean((2, 3), keepdim=True)) / mixed.std((2, 3), keepdim=True)
    assert torch.allclose(normal, mixed, atol=1e-2)  # what the style says nothing of, stays


def test_styles_are_mixed_in_training_only() -> None:
    torch.manual_seed(0)
    network = create_model("efficientnet_lite", drop_rate=0, drop_path_rate=0, mixstyle=1.0)
    images = torch.rand(4, 3, 64, 64)
    network.eval()
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))


@pytest.mark.slow
def test_frozen_layers_and_statistics_stay_while_the_rest_learns() -> None:
    torch.manual_seed(0)
    network = create_model("efficientnet_mini", 3, drop_rate=0, drop_path_rate=0)
    network.freeze(4, statistics=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, 0.1)
    network(torch.rand(4, 3, 64, 64)).square().sum().backward()
    optimiser.step()
    changed_layers = set()
    for name, value in network.state_dict().items():
        layer = int(name.split(".")[1]) if name.startswith("maps.") else 99
        is_statistic = "running_" in name or name.endswith("num_batches_tracked")
        if layer < 4 or is_statistic:
            assert torch.equal(value, before[name]), name
        elif not torch.equal(value, before[name]):
            changed_layers.add(layer)
    assert changed_layers == {*range(4, len(network.maps)), 99}
    network.freeze(0)
    network.train()
    network(torch.rand(4, 3, 64, 64))
    changed = network.state_dict()["maps.0.1.running_mean"]
    assert not torch.equal(changed, before["maps.0.1.running_mean"])


def test_frozen_depthwise_convolutions_stay_while_the_rest_learns() -> None:
    network = create_model("efficientnet_mini", 3, drop_rate=0, drop_path_rate=0)
    network.freeze(0, depthwise=True)
    frozen = [name for name, value in network.named_parameters() if not value.requires_grad]
    assert frozen == [
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    assert len(frozen) == 11
