"""Augmentation of whole batches, on the device that trains.

Flips, rotation, scaling, shear and shift are composed into one affine map and sampled once;
brightness, saturation and hue are composed into one 3×3 matrix an image, before a contrast. Then
come, for the policies that have them, another laboratory's stain, light, focus and camera. All
but a camera's noise is drawn on the CPU, so that a seed gives the same maps and colours on any
device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Policy:
    """How far each property of an image may change; everything is drawn uniformly.

    `degrees` of rotation and `shear` either way; `shift` as a fraction of the side; `scale`,
    `brightness`, `contrast` and `saturation` as fractions around 1; `hue` as a fraction of the
    colour circle. A share `other_stain` of the images gets the stain and light of another image of
    the batch, and then a share `other_site` is made to look as if from elsewhere; the others keep
    stain, light, focus and camera. `dye_mixing` says how much other dyes may mix the channels: the
    standard deviation of the parts of other channels' densities.
    """

    flips: bool = False
    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    other_site: float = 0.0
    other_stain: float = 0.0
    dye_mixing: float = 0.2


# The first four are the study's ablation, each adding to the one before.
POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "flips": Policy(flips=True),
    "flips_rotation": Policy(flips=True, degrees=30),
    "full": Policy(
        flips=True,
        degrees=30,
        shift=0.1,
        scale=0.1,
        shear=5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.1,
    ),
    # A cell has no up or down: any rotation.
    "any_rotation": Policy(
        flips=True,
        degrees=180,
        shift=0.08,
        scale=0.15,
        shear=8,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.04,
    ),
    # As if from many laboratories.
    "domain_randomisation": Policy(
        flips=True,
        degrees=180,
        shift=0.08,
        scale=0.35,
        shear=8,
        brightness=0.2,
        contrast=0.4,
        saturation=0.5,
        hue=0.08,
        other_site=0.75,
    ),
}

# The same for images that come from several laboratories, and with dyes that differ more.
POLICIES["laboratories"] = replace(
    POLICIES["domain_randomisation"], other_site=0.6, other_stain=0.5
)
POLICIES["laboratories_other_dyes"] = replace(POLICIES["laboratories"], hue=0.15, dye_mixing=0.5)

# Of an image as if from elsewhere. Optical densities are natural logarithms.
DYE_STRENGTH = (-0.9, 0.3)  # range of the logarithm of the factor of all densities
DYE_BALANCE = 0.2  # standard deviation of the logarithm of each channel's own factor
GROUND_SCALE = 0.5  # standard deviation of the logarithm of the factor of the ground's density
GROUND_TINT = 0.4  # most that is added to a channel's ground
DEFOCUS = 0.026  # most, standard deviation as a fraction of the side
NOISE = 0.04  # largest standard deviation
GROUND_QUANTILE, STAINED_QUANTILE = 0.15, 0.95  # of a channel's densities
LEAST_DENSITY = 0.1  # between the two; a image without any stain is not blown up


def to_images(frames: Tensor) -> Tensor:
    """(N,H,W,3) uint8 → (N,3,H,W) float in 0..1, in channels-last memory."""
    return frames.permute(0, 3, 1, 2).float().div_(255)


def augment(frames: Tensor, size: int, inner: float, policy: Policy) -> Tensor:
    """Frames (N,F,F,3) uint8 → images (N,3,size,size) float in 0..1.

    `inner` is the side of the model's view as a fraction of the frame's: what is around it in
    the frame is what rotation and shift bring in. Past the frame's edge it is mirrored.
    """
    images = to_images(frames)
    maps = affine_maps(len(images), policy) * inner  # output → input coordinates, -1..1
    grid = torch.nn.functional.affine_grid(
        maps.to(images.device), [len(images), 3, size, size], align_corners=False
    )
    images = torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    if policy.other_stain:
        images = exchange_stains(images, policy.other_stain)
    images = recolour(images, colour_matrices(len(images), policy), policy.contrast)
    if policy.other_site:
        chosen = torch.rand(len(images)) < policy.other_site
        if chosen.any():
            images[chosen] = add_noise(defocus(restain(images[chosen], policy.dye_mixing)))
    return images.contiguous(memory_format=torch.channels_last)


def affine_maps(n: int, policy: Policy) -> Tensor:
    """n random (2,3) maps from output to input coordinates."""
    angle = _around(n, 0.0, math.radians(policy.degrees))
    shear = torch.tan(_around(n, 0.0, math.radians(policy.shear)))
    scale = 1.0 / _around(n, 1.0, policy.scale)
    shift = torch.stack([_around(n, 0.0, 2 * policy.shift) for _ in range(2)], dim=1)  # (n,2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(n, 2, 2)
    one, zero = torch.ones(n), torch.zeros(n)
    slant = torch.stack([one, shear, zero, one], dim=1).view(n, 2, 2)
    linear = rotation @ slant * scale[:, None, None]
    if policy.flips:
        linear = linear * (torch.randint(0, 2, (n, 1, 2)) * 2.0 - 1.0)
    return torch.cat([linear, shift[:, :, None]], dim=2)


def colour_matrices(n: int, policy: Policy) -> Tensor:
    """n random (3,3) matrices: brightness, saturation and hue, in that order.

    Hue is turned in the plane of constant luma (YIQ), which is linear in RGB; it follows the
    hue of HSV closely for the small angles used here.
    """
    luma = torch.tensor(GREY).expand(3, 3)
    to_yiq = torch.tensor([GREY, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
    bright = _around(n, 1.0, policy.brightness)[:, None, None]
    saturation = _around(n, 1.0, policy.saturation)[:, None, None]
    angle = _around(n, 0.0, 2 * math.pi * policy.hue)
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -torch.sin(angle), torch.sin(angle)
    hue = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    saturate = saturation * torch.eye(3) + (1 - saturation) * luma
    matrices: Tensor = bright * (hue @ saturate)
    return matrices


def recolour(images: Tensor, colour: Tensor, contrast: float) -> Tensor:
    """(N,3,h,w) through (N,3,3) colour matrices, then a random contrast around the mean grey."""
    colour = colour.to(images.device)
    images = (colour @ images.flatten(2)).view_as(images)
    factor = _around(len(images), 1.0, contrast).to(images.device)[:, None, None, None]
    weights = torch.tensor(GREY, device=images.device)[:, None, None]
    mean = (images.mean((2, 3), keepdim=True) * weights).sum(1, keepdim=True)  # (N,1,1,1)
    return torch.lerp(mean, images, factor).clamp_(0, 1)


def restain(images: Tensor, mixing: float) -> Tensor:
    """(N,3,h,w) in 0..1 with other dyes, other strengths of them, and other light.

    By Beer and Lambert's law densities add up, so that other dyes mix the densities above the
    ground linearly, and light adds to all of them. Tellez et al., "Quantifying the effects of
    data augmentation and stain color normalization", Medical Image Analysis 58 (2019).
    """
    n, device = len(images), images.device
    density = -images.clamp(min=1 / 255).log()
    sample = density[:, :, ::4, ::4].flatten(2)
    ground = sample.quantile(GROUND_QUANTILE, dim=2)[:, :, None, None]  # (N,3,1,1)
    factors = torch.exp(torch.empty(n, 1, 1).uniform_(*DYE_STRENGTH))
    factors = factors * torch.exp(DYE_BALANCE * torch.randn(n, 3, 1))
    dyes = factors * (torch.eye(3) + mixing * torch.randn(n, 3, 3))
    tint = GROUND_TINT * torch.rand(n, 3, 1, 1)
    scale = torch.exp(GROUND_SCALE * torch.randn(n, 1, 1, 1))
    light = ground * scale.to(device) + tint.to(device)
    stained = (dyes.to(device) @ (density - ground).flatten(2)).view_as(density)
    return torch.exp(-(stained + light)).clamp_(0, 1)


def exchange_stains(images: Tensor, share: float) -> Tensor:
    """(N,3,h,w) in 0..1, of which a share gets another image's stain and light, in part or wholly.

    Per channel, the optical densities of the ground and of the most stained parts are brought to
    those of the other image. Reinhard et al., "Color transfer between images", IEEE CG&A 21
    (2001), with quantiles of densities in place of moments of colours.
    """
    n, device = len(images), images.device
    density = -images.clamp(min=1 / 255).log()
    sample = density[:, :, ::4, ::4].flatten(2).sort(2).values
    last = sample.shape[2] - 1
    ground = sample[:, :, round(GROUND_QUANTILE * last)]  # (N,3)
    stained = sample[:, :, round(STAINED_QUANTILE * last)]
    unit = (stained - ground).clamp(min=LEAST_DENSITY)
    other = torch.randperm(n)
    part = torch.rand(n, 1) * (torch.rand(n, 1) < share)  # 0 keeps the image as it is
    other, part = other.to(device), part.to(device)
    factor = 1 + part * ((unit[other] / unit).clamp(0.3, 3) - 1)
    light = torch.lerp(ground, ground[other], part)
    moved = (density - ground[:, :, None, None]) * factor[:, :, None, None]
    return torch.exp(-(moved + light[:, :, None, None])).clamp_(0, 1)


def mix_up(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N,3,h,w) and targets (N,C), each blended with another of the batch.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """
    other, part = torch.randperm(len(images)).to(images.device), float(torch.rand(())) / 2
    return torch.lerp(images, images[other], part), torch.lerp(targets, targets[other], part)


def defocus(images: Tensor) -> Tensor:
    """(N,3,h,w), each blurred by a Gaussian of its own width."""
    n, side = len(images), images.shape[-1]
    widest = DEFOCUS * side
    radius = math.ceil(1.5 * widest)
    offsets = torch.arange(-radius, radius + 1)
    width = torch.empty(n, 1).uniform_(1e-2, widest)
    kernels = torch.softmax(-((offsets / width) ** 2) / 2, dim=1)  # (N,2r+1)
    kernels = kernels.repeat_interleave(3, 0)[:, None].to(images.device)  # (3N,1,2r+1)
    planes = images.reshape(1, 3 * n, *images.shape[2:])
    planes = torch.nn.functional.pad(planes, [radius] * 4, mode="reflect")
    planes = torch.nn.functional.conv2d(planes, kernels[:, :, :, None], groups=3 * n)
    planes = torch.nn.functional.conv2d(planes, kernels[:, :, None, :], groups=3 * n)
    return planes.view(images.shape)


def add_noise(images: Tensor) -> Tensor:
    """(N,3,h,w) in 0..1 with a camera's noise, of another strength in each."""
    strength = torch.empty(len(images), 1, 1, 1).uniform_(0, NOISE).to(images.device)
    noise = torch.randn(images.shape, device=images.device)
    return (images + strength * noise).clamp_(0, 1)


def _around(n: int, centre: float, spread: float) -> Tensor:
    return torch.empty(n).uniform_(centre - spread, centre + spread)
