"""Training without labels: its losses, its runs that repeat and go on, and what comes of them."""

from __future__ import annotations

import doctest
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from drawn import draw_folder
from hemascope.cli import app
from hemascope.data.manifest import Manifest, ManifestRow, manifest_from_folder, write_manifest
from hemascope.data.synthetic_fields import draw_field
from hemascope.errors import ManifestError, TrainingError
from hemascope.models import create_model
from hemascope.preprocess import View
from hemascope.smear.cells_of_fields import cut_cells
from hemascope.smear.locate import Locator
from hemascope.training import contrastive, pretrain_recipe
from hemascope.training.contrastive import MoCo, SimCLR, info_nce, nt_xent
from hemascope.training.export_runs import export_run
from hemascope.training.folder import RunFolder
from hemascope.training.pretrain import pretrain
from hemascope.training.pretrain_recipe import PretrainRecipe, read_pretrain_recipe
from hemascope.training.recipe import Recipe
from hemascope.training.run import train
from samples import noise_files
from test_signals import WHILE_WRITING, hidden, run

TINY = PretrainRecipe(
    model="efficientnet_lite",
    image_size=64,
    epochs=3,
    batch_size=8,
    precision="fp32",
    projection=16,
    queue=20,
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn cells, three per class."""
    folder = tmp_path_factory.mktemp("cells") / "cells"
    draw_folder(folder, 3, seed=1, size=80)
    return folder


@pytest.fixture(scope="module")
def views(cells: Path) -> list[View]:
    return [View(str(path)) for path in sorted(cells.glob("*/*.png"))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "cache"


def ramp(rows: int, phase: float) -> Tensor:
    """Vectors (rows,3) that a formula gives, of lengths other than 1."""
    places = torch.arange(rows, dtype=torch.float64)[:, None]
    return torch.sin(places * torch.tensor([1.0, 2.0, 3.0]) + phase) + 0.1 * places


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / math.sqrt(one @ one) / math.sqrt(other @ other))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_is_its_definition(temperature: float) -> None:
    first, second = ramp(5, 0.7).numpy(), ramp(5, 0.4).numpy()
    views = [*first, *second]
    losses = []
    for i, view in enumerate(views):
        partner = (i + 5) % 10
        alike = {
            j: math.exp(cosine(view, other) / temperature)
            for j, other in enumerate(views)
            if j != i
        }
        losses.append(-math.log(alike[partner] / sum(alike.values())))
    found = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)
    swapped = nt_xent(torch.from_numpy(second), torch.from_numpy(first), temperature)
    assert found.item() == pytest.approx(swapped.item(), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_is_its_definition(temperature: float) -> None:
    queries, keys, queue = ramp(4, 0.7).numpy(), ramp(4, 0.3).numpy(), ramp(7, 2.0).numpy()
    losses = []
    for query, key in zip(queries, keys, strict=True):
        own = math.exp(cosine(query, key) / temperature)
        others = sum(math.exp(cosine(query, other) / temperature) for other in queue)
        losses.append(-math.log(own / (own + others)))
    found = info_nce(*map(torch.from_numpy, (queries, keys, queue)), temperature)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("n", [2, 8, 128])
def test_losses_of_images_that_are_not_told_apart(n: int) -> None:
    """All views alike: the logarithm of how many candidates there are."""
    same = torch.ones(n, 4)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(2 * n - 1), rel=1e-5)
    assert info_nce(same, same, same, 0.5).item() == pytest.approx(math.log(n + 1), rel=1e-5)


def test_losses_have_gradients_for_all_but_the_queue() -> None:
    first, second = (ramp(4, phase).requires_grad_() for phase in (0.7, 1.2))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (first, second))
    query = ramp(4, 0.7).requires_grad_()
    keys, queue = ramp(4, 0.5), ramp(6, 1.0)
    assert torch.autograd.gradcheck(lambda a: info_nce(a, keys, queue, 0.5), (query,))


@pytest.mark.parametrize("module", [contrastive, pretrain_recipe])
def test_examples_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def moco(momentum: float) -> MoCo:
    torch.manual_seed(0)
    recipe = replace(TINY, method="moco", momentum=momentum)
    return MoCo(create_model("simple_cnn", 2, drop_rate=0), recipe)


@pytest.mark.slow
def test_the_queue_goes_round_and_the_copy_follows() -> None:
    learner = moco(0.9)
    images = torch.rand(8, 3, 64, 64)
    before = learner.queue.clone()
    with torch.no_grad():  # so that copy and network differ
        for parameter in learner.query.parameters():
            parameter.add_(0.1)
    slow = {name: value.clone() for name, value in learner.key.state_dict().items()}
    fast = {name: value.clone() for name, value in learner.query.state_dict().items()}
    logits, targets = learner(images, images)
    assert logits.shape == (8, 21)
    assert not targets.any()
    assert torch.equal(learner.queue[8:], before[8:])
    assert not torch.isclose(learner.queue[:8], before[:8]).all(1).any()
    name = "network.maps.0.0.weight"
    name = name if name in slow else next(n for n in slow if slow[n].ndim == 4)
    expected = 0.9 * slow[name] + 0.1 * fast[name]
    torch.testing.assert_close(learner.key.state_dict()[name], expected)
    for _ in range(2):
        learner(images, images)
    assert learner.place.item() == 24 % 20  # the last batch began at 16 and went round
    kept = learner.queue[4:8]
    with torch.no_grad():
        newest = learner.key(images)
    torch.testing.assert_close(learner.queue[:4], newest[4:])
    assert not torch.isclose(kept, newest[4:]).all()


@pytest.mark.slow
def test_no_gradient_reaches_the_slow_copy() -> None:
    learner = moco(0.5)
    images = torch.rand(8, 3, 64, 64)
    logits, targets = learner(images, images)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    assert all(parameter.grad is None for parameter in learner.key.parameters())
    assert all(parameter.grad is not None for parameter in learner.query.parameters())
    assert not learner.train().key.training


def test_simclr_normalises_both_views_together() -> None:
    torch.manual_seed(0)
    learner = SimCLR(create_model("simple_cnn", 2, drop_rate=0), TINY)
    first, second = torch.rand(2, 8, 3, 64, 64)
    logits, targets = learner(first, second)
    whole = learner.query(torch.cat([first, second]))
    mask = ~torch.eye(16, dtype=torch.bool)
    torch.testing.assert_close(logits[mask], (whole @ whole.T / TINY.temperature)[mask])
    assert targets.tolist() == [*range(8, 16), *range(8)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "byol"}, "method must be one of simclr, moco, not 'byol'"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"augmentation": "none"}, "augmentation none makes both views of an image the same"),
        ({"temperature": 0.0}, "temperature must be from 0.01 to 10, not 0"),
        ({"method": "moco", "queue": 4}, r"queue must be from batch_size \(8\)"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, not 1"),
        ({"projection": 1}, "projection must be from 2"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"image_size": 8}, "image_size must be from 64"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)  # type: ignore[arg-type]


def same(one: RunFolder, other: RunFolder) -> bool:
    first, second = load_file(one.last), load_file(other.last)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    method: str, views: list[View], cache: Path, tmp_path: Path
) -> None:
    recipe = replace(TINY, method=method, augmentation="laboratories")  # type: ignore[arg-type]
    whole, data = pretrain(recipe, views, tmp_path / "whole", cache=cache)
    assert (len(data.frames), data.damaged) == (24, ())
    records = whole.read_metrics()
    assert [record.epoch for record in records] == [1, 2, 3]
    assert all(math.isfinite(record.train_loss) for record in records)

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, views, tmp_path / "stopped", cache=cache, on_epoch=stop)
    stopped = RunFolder(tmp_path / "stopped")
    assert len(stopped.read_metrics()) == 1
    with pytest.raises(TrainingError, match="--resume to go on with it, or --force to replace"):
        pretrain(recipe, views, stopped.path, cache=cache)
    with pytest.raises(TrainingError, match="is another recipe"):
        pretrain(replace(recipe, seed=1), views, stopped.path, cache=cache, resume=True)
    with pytest.raises(TrainingError, match="or of other images"):
        pretrain(recipe, views[1:], stopped.path, cache=cache, resume=True)
    pretrain(recipe, views, stopped.path, cache=cache, resume=True)
    assert same(whole, stopped)
    names = {"recipe.json", "provenance.json", "metrics.csv", "curves.png", "events"}
    names |= {"last.safetensors", "best.safetensors"}
    assert {path.name for path in stopped.path.iterdir()} == names


@pytest.mark.slow
def test_it_learns_to_find_the_other_view(views: list[View], cache: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=25, learning_rate=3e-3, batch_size=24)
    run, _ = pretrain(recipe, views, tmp_path / "run", cache=cache)
    records = run.read_metrics()
    assert records[0].train_loss > records[-1].train_loss
    assert records[-1].train_loss < math.log(47) - 0.2  # of 47 views that are not told apart


@pytest.mark.slow
def test_its_weights_are_a_start(
    cells: Path, views: list[View], cache: Path, tmp_path: Path
) -> None:
    run, _ = pretrain(replace(TINY, epochs=1), views, tmp_path / "run", cache=cache)
    learnt = load_file(run.best)
    assert not [name for name in learnt if name.startswith(("head", "projection"))]
    recipe = Recipe(
        model="efficientnet_lite",
        image_size=64,
        epochs=1,
        batch_size=8,
        learning_rate=1e-9,
        min_learning_rate=0,
        precision="fp32",
        frozen_statistics=True,
        val_fraction=0,
    )
    manifest = manifest_from_folder(cells)
    trained = train(recipe, manifest, tmp_path / "t", start_from=run.path, cache=cache)
    after = load_file(trained.best)
    assert all(torch.allclose(after[name], value, atol=1e-5) for name, value in learnt.items())
    assert after["head.weight"].shape[0] == 8
    again, _ = pretrain(
        replace(TINY, epochs=1, seed=1), views, tmp_path / "b", cache=cache, start_from=run.path
    )
    assert again.start.read_bytes() == run.best.read_bytes()
    other = replace(TINY, model="simple_cnn")
    with pytest.raises(ValueError, match="classes"):  # there are none to export
        export_run(run)
    with pytest.raises(TrainingError, match="another architecture"):
        pretrain(other, views, tmp_path / "c", cache=cache, start_from=run.path)


@pytest.mark.slow
def test_force_replaces_a_run_and_nothing_else(
    views: list[View], cache: Path, tmp_path: Path
) -> None:
    once = replace(TINY, epochs=1)
    run, _ = pretrain(once, views, tmp_path / "run", cache=cache)
    (run.path / "notes.txt").write_text("keep")
    pretrain(replace(once, seed=1), views, run.path, cache=cache, force=True)
    assert read_pretrain_recipe(run.recipe).seed == 1
    assert (run.path / "notes.txt").read_text() == "keep"
    expected, _ = pretrain(replace(once, seed=1), views, tmp_path / "new", cache=cache)
    assert same(run, expected)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "recipe.json").write_text('{"label_smoothing": 0.1}')
    with pytest.raises(ValueError, match="not the recipe of a run without labels"):
        pretrain(once, views, tmp_path / "train", cache=cache, force=True)


def command(*words: object) -> object:
    return app([str(word) for word in words], result_action="return_value")


SMALL = ["--model", "efficientnet_lite", "--image-size", "64", "--epochs", "1"]


def test_what_cannot_be_learnt_from_is_refused(cells: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run", "--cache", tmp_path / "cache")
    with pytest.raises(ValueError, match="no images were given"):
        command("pretrain", *out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        command("pretrain", tmp_path / "empty", *out)
    with pytest.raises(ManifestError, match="24 images are too few for a batch of 128; give more"):
        command("pretrain", cells, *out)
    with pytest.raises(ValueError, match="--resume goes on with a run and --force replaces it"):
        command("pretrain", cells, *out, "--resume", "--force")
    with pytest.raises(ValueError, match="--fields needs --microns"):
        command("pretrain", "--fields", cells, *out)
    rows = tuple(ManifestRow(f"{i}.png", "ig", split="test") for i in range(3))
    write_manifest(Manifest(tmp_path, rows), tmp_path / "m.csv")
    with pytest.raises(ValueError, match="there are no images to learn from; all 3 rows are of"):
        command("pretrain", tmp_path / "m.csv", *out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("keep")
    with pytest.raises(TrainingError, match="not empty and not a run"):
        command("pretrain", cells, "--out", tmp_path / "other", "--batch-size", 8, *SMALL)
    with pytest.raises(TrainingError, match="no ImageNet weights for efficientnet_lite here"):
        command("pretrain", cells, *out, "--start-from", "imagenet", *SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_passes_over_what_is_damaged_and_what_is_of_split_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    noise_files(folder, 12, 5)
    rows = [ManifestRow(f"{i:03d}.png", "ig", split="test" if i < 2 else "") for i in range(12)]
    write_manifest(Manifest(folder, tuple(rows)), folder / "m.csv")
    out = ("--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert command("pretrain", folder / "m.csv", *out, *SMALL, "--batch-size", 4) == 0
    found = capsys.readouterr()
    assert "2 rows of split test are left out" in found.out
    assert "learnt from 9 images" in found.out
    assert "1 images could not be read" in found.err
    assert "005.png" in found.err.replace("\n", "")
    with pytest.raises(ManifestError, match=r"9 images \(1 more could not be read\) are too few"):
        command("pretrain", folder / "m.csv", "--out", tmp_path / "b", *SMALL, "--batch-size", 10)


@pytest.mark.slow
def test_cells_are_cut_from_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for seed in (1, 2):
        paths.append(str(tmp_path / f"{seed}.png"))
        draw_field(seed=seed, white=3).image.save(paths[-1])
    (tmp_path / "3.png").write_bytes(b"no image")
    cut = cut_cells(Locator.from_bundle(), [*paths, str(tmp_path / "3.png")])
    assert (cut.without_scale, cut.unreadable) == (0, 1)
    assert all(view.um_per_pixel is not None and view.centre is not None for view in cut.views)
    fields = [Locator.from_bundle().locate(path) for path in paths]
    expected = [
        (field.path, cell.centre)
        for field in fields
        for kind in ("white", "platelet")
        for cell in field.select(kind)  # type: ignore[arg-type]
        if not cell.at_border
    ]
    assert [(view.image, view.centre) for view in cut.views] == expected
    out = ("--out", tmp_path / "run", "--cache", tmp_path / "cache", "--microns", 20)
    assert command("pretrain", "--fields", tmp_path, *out, *SMALL, "--batch-size", 2) == 0
    assert f"{len(expected)} cells on 2 fields; passed over: 0 fields" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("after", [1, 5])
def test_sigterm_leaves_nothing_half_written(cells: Path, tmp_path: Path, after: int) -> None:
    words = ["pretrain", cells, "--out", "run", "--cache", "c", *SMALL, "--batch-size", 8]
    found = run(WHILE_WRITING, int(signal.SIGTERM), after, *words, cwd=tmp_path)
    assert found.returncode == 143, found.stderr
    assert found.stderr.splitlines()[-1].startswith("stopped;")
    assert "Traceback" not in found.stderr
    assert hidden(tmp_path) == []
