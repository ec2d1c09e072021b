"""Augmentation and the cache that feeds it."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from hemascope.data import augment as augmentation
from hemascope.data.augment import (
    POLICIES,
    Policy,
    add_noise,
    affine_maps,
    augment,
    defocus,
    exchange_stains,
    mix_up,
    recolour,
    restain,
    to_images,
)
from hemascope.data.augment import colour_matrices as matrices
from hemascope.data.cache import open_cache
from hemascope.data.dataset import CellDataset, EpochShuffle, train_loader
from hemascope.errors import ImageError
from hemascope.preprocess import InputSpec, View


def frames(n: int = 4, size: int = 32) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def test_no_augmentation_changes_nothing() -> None:
    plain = augment(frames(), 32, 1.0, POLICIES["none"])
    assert torch.allclose(plain, to_images(frames()), atol=1e-5)


def test_inner_is_the_middle_of_the_frame() -> None:
    middle = augment(frames(), 16, 0.5, POLICIES["none"])
    assert torch.allclose(middle, to_images(frames())[:, :, 8:24, 8:24], atol=1e-5)


def test_flips_are_flips() -> None:
    torch.manual_seed(0)
    image = frames(1)
    plain = to_images(image)[0]
    turned = {0: plain, 1: plain.flip(1), 2: plain.flip(2), 3: plain.flip(1, 2)}
    seen = set()
    for flipped in augment(image.expand(40, -1, -1, -1), 32, 1.0, POLICIES["flips"]):
        matching = [k for k, v in turned.items() if torch.allclose(flipped, v, atol=1e-4)]
        assert len(matching) == 1
        seen |= set(matching)
    assert seen == {0, 1, 2, 3}


def test_a_quarter_turn_is_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    monkeypatch.setattr("hemascope.data.augment.affine_maps", lambda n, policy: quarter)
    turned = augment(frames(1), 32, 1.0, Policy())[0]
    assert torch.allclose(turned, to_images(frames(1))[0].rot90(1, (1, 2)), atol=1e-4)


def test_maps_keep_to_the_policy() -> None:
    policy = replace(POLICIES["full"], shear=0.0)
    maps = affine_maps(2000, policy)
    scale = maps[:, :, :2].det().abs().sqrt()
    assert 1 / 1.1 - 1e-5 <= scale.min() < scale.max() <= 1 / 0.9 + 1e-5
    angles = torch.rad2deg(torch.atan2(maps[:, 1, 0].abs(), maps[:, 0, 0].abs()))
    assert 28 < angles.max() <= 30.001
    assert 0.18 < maps[:, :, 2].abs().max() <= 0.2


@pytest.mark.parametrize("field", ["brightness", "saturation", "contrast", "hue"])
def test_colour_changes_what_it_says(field: str) -> None:
    torch.manual_seed(1)
    images = to_images(frames(200, 4)) * 0.5 + 0.2  # away from the clamp
    policy = replace(Policy(), **{field: 0.05})
    changed = recolour(images, matrices(200, policy), policy.contrast)
    grey = torch.tensor([0.299, 0.587, 0.114])
    luma, before = (torch.einsum("nchw,c->nhw", x, grey) for x in (changed, images))
    if field in ("saturation", "hue"):
        assert torch.allclose(luma, before, atol=1e-3)
    elif field == "brightness":
        assert torch.allclose(luma / before, (luma / before)[:, :1, :1], atol=1e-3)
    else:
        assert torch.allclose(luma.mean((1, 2)), before.mean((1, 2)), atol=1e-3)
    assert (changed - images).abs().max() > 0.01


def test_hue_follows_hsv_for_small_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemascope.data.augment._around", lambda n, c, s: torch.full((n,), c + s))
    colour = torch.tensor([0.55, 0.35, 0.65])  # a stained nucleus
    turned = (matrices(1, Policy(hue=0.03))[0] @ colour).tolist()
    hue = colorsys.rgb_to_hsv(*turned)[0] - colorsys.rgb_to_hsv(*colour.tolist())[0]
    assert abs(hue) == pytest.approx(0.03, abs=0.015)


def test_a_seed_gives_the_same_images() -> None:
    torch.manual_seed(3)
    once = augment(frames(), 24, 0.7, POLICIES["full"])
    torch.manual_seed(3)
    assert torch.equal(once, augment(frames(), 24, 0.7, POLICIES["full"]))
    assert not torch.equal(once, augment(frames(), 24, 0.7, POLICIES["full"]))


def test_epochs_have_their_own_order_and_lose_no_image() -> None:
    shuffle = EpochShuffle(50, seed=1)
    first = list(shuffle)
    shuffle.set_epoch(1)
    second = list(shuffle)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(50))


def test_a_batch_holds_the_right_targets() -> None:
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    for batch, targets in train_loader(CellDataset(images, range(10)), batch_size=3, seed=0):
        assert torch.equal(batch[:, 0, 0, 0].long(), targets)
    with pytest.raises(ValueError, match="10 frames but 3 targets"):
        CellDataset(images, [0, 1, 2])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (number * 40, 0, 0)).save(paths[-1])
    return paths


def whole_images(files: list[Path]) -> list[View]:
    return [View(file) for file in files]


def test_cache_is_made_once_and_again_when_stale(files: list[Path], tmp_path: Path) -> None:
    folder, spec = tmp_path / "cache", InputSpec(16)
    images = open_cache(whole_images(files), spec, folder)
    assert [int(image[0, 0, 0]) for image in images] == [0, 40, 80, 120, 160]
    (stored,) = folder.glob("*.npy")
    made = stored.stat().st_mtime_ns
    open_cache(whole_images(files), spec, folder)
    assert stored.stat().st_mtime_ns == made
    Image.new("RGB", (20, 20), (7, 0, 0)).save(files[0])  # an image that changed
    assert int(open_cache(whole_images(files), spec, folder)[0, 0, 0, 0]) == 7
    assert open_cache(whole_images(files), InputSpec(18), folder).shape == (5, 18, 18, 3)


@pytest.mark.parametrize("damage", ["truncated", "altered", "headless"])
def test_damaged_cache_is_made_again(files: list[Path], tmp_path: Path, damage: str) -> None:
    folder, spec = tmp_path / "cache", InputSpec(16)
    whole = np.array(open_cache(whole_images(files), spec, folder))
    (stored,) = folder.glob("*.npy")
    content = bytearray(stored.read_bytes())
    if damage == "truncated":
        del content[-100:]
    elif damage == "altered":
        content[-1] ^= 255
    else:
        next(folder.glob("*.json")).unlink()
    stored.write_bytes(content)
    assert np.array_equal(open_cache(whole_images(files), spec, folder), whole)


def test_cache_names_the_file_that_cannot_be_read(files: list[Path], tmp_path: Path) -> None:
    files[2].write_bytes(files[2].read_bytes()[:60])
    with pytest.raises(ImageError, match=r"2\.png: "):
        open_cache(whole_images(files), InputSpec(16), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_of_many_sites_some_images_stay_as_they_are() -> None:
    """With every other change off, an image is either itself or seen elsewhere."""
    torch.manual_seed(0)
    images = torch.rand(1, 32, 32, 3).expand(200, -1, -1, -1).mul(255).byte()
    found = augment(images, 32, 1.0, Policy(other_site=0.75))
    untouched = (found - to_images(images)).abs().amax((1, 2, 3)) < 1e-5
    assert 25 <= untouched.sum() <= 75
    torch.manual_seed(1)
    for _ in range(20):  # a batch of one of which none is chosen
        assert augment(images[:1], 32, 1.0, POLICIES["domain_randomisation"]).shape == (
            1,
            3,
            32,
            32,
        )


def test_the_same_dyes_and_light_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DYE_BALANCE", "GROUND_SCALE", "GROUND_TINT", "NOISE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(augmentation, "DYE_STRENGTH", (0.0, 0.0))
    images = torch.rand(3, 3, 32, 32) * 0.9 + 0.1
    assert torch.allclose(restain(images, mixing=0.0), images, atol=1e-5)
    assert torch.equal(add_noise(images), images)


def test_a_stronger_stain_multiplies_densities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DYE_BALANCE", "GROUND_SCALE", "GROUND_TINT"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(augmentation, "DYE_STRENGTH", (np.log(0.5), np.log(0.5)))
    image = torch.ones(1, 3, 32, 32)  # a ground that lets all light through
    image[:, :, 10:20, 10:20] = 0.25
    assert torch.allclose(
        restain(image, mixing=0.0)[:, :, 10:20, 10:20], torch.tensor(0.5), atol=1e-5
    )


def test_defocus_keeps_the_mean_and_takes_the_detail() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 96, 96)
    blurred = defocus(images)
    assert torch.allclose(blurred.mean((2, 3)), images.mean((2, 3)), atol=0.01)
    assert (blurred.var((2, 3)) <= images.var((2, 3)) + 1e-6).all()
    assert blurred.var() < 0.7 * images.var()


def test_exchanged_stains_are_those_of_another_image() -> None:
    """An image that takes all of another's stain has its ground and its most stained parts."""
    torch.manual_seed(0)
    density = torch.rand(2, 1, 64, 64).expand(2, 3, 64, 64) * torch.tensor([0.5, 1.5])[
        :, None, None, None
    ] + torch.tensor([0.05, 0.3])[:, None, None, None] * torch.ones(1, 3, 1, 1)
    images = torch.exp(-density)
    with mock.patch("torch.rand", lambda *shape: torch.ones(*shape)):  # wholly, if at all
        assert torch.allclose(exchange_stains(images, 0.0), images, atol=1e-6)
    with (
        mock.patch("torch.rand", lambda *shape: torch.ones(*shape) * 0.999),
        mock.patch("torch.randperm", return_value=torch.tensor([1, 0])),
    ):
        exchanged = -exchange_stains(images, 1.0).log()
    for quantile in (0.15, 0.95):
        mine = exchanged.flatten(2).quantile(quantile, 2)
        other = density.flatten(2).quantile(quantile, 2).flip(0)
        assert torch.allclose(mine, other, atol=0.05)


def test_blended_images_have_blended_targets() -> None:
    torch.manual_seed(1)
    targets = torch.eye(4)
    images = targets[:, :, None, None].expand(4, 4, 2, 2)[:, :3]  # an image shows its target
    blended, mixed = mix_up(images, targets)
    assert torch.allclose(blended[:, :, 0, 0], mixed[:, :3])
    assert torch.allclose(mixed.sum(1), torch.ones(4))
    assert (mixed.diagonal() >= 0.5).all()


def test_weights_say_how_often_an_image_is_drawn() -> None:
    weights = np.array([0.25, 0.5, 1.0, 2.25])
    shuffle = EpochShuffle(4, seed=0, weights=weights)
    counts = np.zeros(4)
    for epoch in range(400):
        shuffle.set_epoch(epoch)
        drawn = np.bincount(list(shuffle), minlength=4)
        assert drawn.sum() == len(shuffle) == 4
        assert (np.abs(drawn - weights) < 1).all()
        counts += drawn
    assert counts / 400 == pytest.approx(weights, abs=0.1)


def test_the_cache_of_whole_images_keeps_its_name(tmp_path: Path) -> None:
    """A change of the name would make every user's caches anew."""
    views = []
    for number in range(2):
        path = tmp_path / f"{number}.ppm"
        path.write_bytes(b"P6 4 4 255\n" + bytes([number]) * 48)
        views.append(View(path))
    open_cache(views, InputSpec(16), tmp_path / "cache")
    (stored,) = (tmp_path / "cache").glob("*.npy")
    assert stored.stem == "8cceb25e167d61f80b3d76d5"


def test_the_cache_holds_views(tmp_path: Path) -> None:
    """Two cells of one field, one of them at two scales, each in its own frame."""
    field = np.zeros((60, 100, 3), np.uint8)
    field[10:30, 10:30], field[40:50, 70:80] = 200, 100
    path, folder = tmp_path / "field.png", tmp_path / "cache"
    Image.fromarray(field).save(path)
    spec = InputSpec(20, microns=2.0)
    views = [
        View(path, 0.1, (20, 20)),
        View(str(path), 0.2, (75, 45)),
        View(path, 0.1, (75, 45)),
    ]
    frames = open_cache(views, spec, folder)
    assert all(np.array_equal(a, spec.load(b)) for a, b in zip(frames, views, strict=True))
    assert [int(frame[2, 2, 0]) for frame in frames] == [200, 100, 0]
    open_cache(views[::-1], spec, folder)
    open_cache([replace(view, um_per_pixel=0.15) for view in views], spec, folder)
    assert len(list(folder.glob("*.npy"))) == 3
    with pytest.raises(TypeError, match="only views of files can be cached, not of ndarray"):
        open_cache([View(field)], spec, folder)
