"""Training: runs that repeat, go on after a kill, share work between processes, and stop."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import Manifest, ManifestRow, manifest_from_folder, write_manifest
from hemascope.data.splits import LeakageError
from hemascope.inference.classifier import Classifier
from hemascope.serialization import to_json
from hemascope.training.folder import RunFolder
from hemascope.training.loop import TrainingError, load_start, network_of
from hemascope.training.optim import WeightAverage, learning_rate
from hemascope.training.recipe import PAPER, Recipe, read_recipe
from hemascope.training.run import bundle_of, ensemble_of, snapshots_of, train
from samples import two_classes

TINY = Recipe(
    model="efficientnet_lite",
    image_size=64,
    epochs=2,
    batch_size=8,
    learning_rate=3e-3,
    val_fraction=0.25,
    precision="fp32",
    ema_decay=0.9,
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour, 20 images each."""
    return two_classes(tmp_path_factory.mktemp("cells"), 20)


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "cache"


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.last)


def same(one: RunFolder, other: RunFolder) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def start(
    cells: Path, out: Path, cache: Path, recipe: Recipe, *launcher: str
) -> subprocess.Popen[str]:
    recipe_file = out.parent / f"{out.name}.json"
    recipe_file.write_bytes(to_json(recipe))
    arguments = ["train", cells, "--out", out, "--cache", cache, "--recipe", recipe_file]
    command = [sys.executable, "-m", *launcher, "hemascope", *map(str, arguments), "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def test_a_run_leaves_everything_in_its_folder(cells: Path, cache: Path, tmp_path: Path) -> None:
    folder = train(
        replace(TINY, epochs=6), manifest_from_folder(cells), tmp_path / "run", cache=cache
    )
    names = {path.name for path in folder.path.iterdir()}
    assert names == {
        "recipe.json",
        "provenance.json",
        "metrics.csv",
        "curves.png",
        "events",
        "last.safetensors",
        "best.safetensors",
        "bundle",
    }
    records = folder.read_metrics()
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1].train_loss < records[0].train_loss
    card = read_bundle(folder.bundle).card
    assert card.classes.names == ("orange", "violet")
    assert card.figures[0].result.n == 10
    facts = json.loads(folder.provenance.read_text())
    assert (facts["train_images"], facts["val_images"]) == (30, 10)
    answers = Classifier(folder.bundle).predict([cells / "orange" / "0.png"])
    assert answers[0].label in card.classes.names


def test_a_seed_gives_the_same_run_twice(cells: Path, cache: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    manifest = manifest_from_folder(cells)
    runs = [
        train(replace(TINY, seed=seed), manifest, tmp_path / name, cache=cache)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_a_killed_run_goes_on_to_the_same_weights(cells: Path, cache: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=5)
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert start(cells, whole.path, cache, recipe).wait() == 0
    process = start(cells, cut.path, cache, recipe)
    deadline = time.monotonic() + 120
    while len(cut.read_metrics()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(cut.read_metrics()) < 5
    assert not cut.bundle.exists()
    assert start(cells, cut.path, cache, recipe).wait() == 0
    assert same(whole, cut)
    losses = [[r.train_loss for r in run.read_metrics()] for run in (whole, cut)]
    assert losses[0] == losses[1]


def test_two_processes_train_one_model(cells: Path, cache: Path, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--master-port=29517", "-m"]
    process = start(cells, tmp_path / "two", cache, TINY, *launcher)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    two = RunFolder(tmp_path / "two")
    assert len(two.read_metrics()) == 2
    assert read_bundle(two.bundle).card.parameters > 0
    assert output.count("bundle written") == 1


def test_two_processes_have_the_losses_of_one(cells: Path, cache: Path, tmp_path: Path) -> None:
    """Each takes half of what one takes whole; without norms over the batch, which would differ."""
    recipe = replace(TINY, epochs=4, augmentation="none", dropout=0.0, stochastic_depth=0.0)
    script = tmp_path / "norms_of_one_image.py"
    script.write_text(
        "from torch import nn\n"
        "nn.BatchNorm2d = lambda channels: nn.GroupNorm(1, channels)\n"
        "from hemascope.cli import main\n"
        "main()\n"
    )
    (tmp_path / "recipe.json").write_bytes(to_json(recipe))
    losses = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc-per-node=2"]):
        out = tmp_path / f"run{len(losses)}"
        words = ["train", cells, "--out", out, "--cache", cache]
        command = [sys.executable, *launcher, script, *words, "--recipe", tmp_path / "recipe.json"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": "29518"}
        subprocess.run(command, check=True, capture_output=True, env=environment, timeout=240)
        losses.append([record.train_loss for record in RunFolder(out).read_metrics()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < 0.9 * losses[0][0]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["simple_cnn", "resnet18", "deep_efficientnet"])
def test_every_model_and_precision_trains(
    cells: Path, cache: Path, tmp_path: Path, model: str, precision: str
) -> None:
    recipe = Recipe(**asdict(TINY) | {"model": model, "precision": precision, "epochs": 1})
    folder = train(recipe, manifest_from_folder(cells), tmp_path / "run", cache=cache)
    assert math.isfinite(folder.read_metrics()[0].train_loss)


def test_a_loss_that_is_no_number_stops_the_run(cells: Path, cache: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, learning_rate=100.0, optimizer="sgd", clip_norm=0, weight_decay=1e6)
    with pytest.raises(TrainingError, match="no longer a number"):
        train(replace(recipe, epochs=9), manifest_from_folder(cells), tmp_path / "run", cache=cache)
    folder = RunFolder(tmp_path / "run")
    assert not folder.bundle.exists()
    if folder.last.exists():
        assert all(tensor.isfinite().all() for tensor in weights(folder).values())


def test_images_of_test_in_train_stop_the_run(cells: Path, cache: Path, tmp_path: Path) -> None:
    rows = manifest_from_folder(cells).rows
    (cells / "violet" / "copy.png").write_bytes((cells / rows[0].path).read_bytes())
    leak = ManifestRow("violet/copy.png", "violet", split="test")
    split = [replace(row, split="train") for row in rows if row.path != leak.path]
    try:
        with pytest.raises(LeakageError, match=r"violet/copy\.png"):
            train(TINY, Manifest(cells, (*split, leak)), tmp_path / "run", cache=cache)
    finally:
        (cells / "violet" / "copy.png").unlink()
    assert not (tmp_path / "run").exists()


def test_splits_of_the_manifest_are_used(cells: Path, cache: Path, tmp_path: Path) -> None:
    rows = [
        replace(row, split="val" if number % 4 == 0 else "train")
        for number, row in enumerate(manifest_from_folder(cells).rows)
    ]
    write_manifest(Manifest(cells, tuple(rows)), cells / "splits.csv", overwrite=True)
    folder = train(TINY, Manifest(cells, tuple(rows)), tmp_path / "run", cache=cache)
    facts = json.loads(folder.provenance.read_text())
    assert (facts["train_images"], facts["val_images"]) == (30, 10)


def test_a_folder_that_is_taken_is_refused(cells: Path, cache: Path, tmp_path: Path) -> None:
    manifest, out = manifest_from_folder(cells), tmp_path / "run"
    train(TINY, manifest, out, cache=cache)
    with pytest.raises(TrainingError, match="--resume"):
        train(TINY, manifest, out, cache=cache)
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(TINY, seed=9), manifest, out, cache=cache, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        train(TINY, manifest, tmp_path / "other", cache=cache)


def test_a_damaged_checkpoint_is_refused(cells: Path, cache: Path, tmp_path: Path) -> None:
    folder = train(TINY, manifest_from_folder(cells), tmp_path / "run", cache=cache)
    folder.last.write_bytes(folder.last.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train(TINY, manifest_from_folder(cells), folder.path, cache=cache, resume=True)


def test_schedules() -> None:
    recipe = replace(PAPER, epochs=50)
    assert learning_rate(recipe, 0) == pytest.approx(1e-3)
    assert learning_rate(recipe, 25) == pytest.approx((1e-3 + 1e-6) / 2)
    assert learning_rate(recipe, 50) == pytest.approx(1e-6)
    assert learning_rate(replace(recipe, schedule="constant"), 49) == 1e-3
    steps = [learning_rate(replace(recipe, schedule="step"), epoch) for epoch in (0, 20, 40)]
    assert steps == pytest.approx([1e-3, 1e-4, 1e-5])
    warm = replace(recipe, warmup_epochs=10)
    assert learning_rate(warm, 5) == pytest.approx(5e-4)
    assert learning_rate(warm, 10) == pytest.approx(1e-3)


def test_average_follows_the_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.5)
    expected = model.weight.item()
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.state["weight"].item() == pytest.approx(expected)


def test_image_size_grows() -> None:
    recipe = replace(PAPER, image_size=128, start_size=96, epochs=30)
    sizes = [recipe.size_at(epoch) for epoch in range(30)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[10], sizes[20], sizes[29]) == (96, 112, 128, 128)
    assert {replace(PAPER, epochs=9).size_at(epoch) for epoch in range(9)} == {224}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "resnet19"),
        ("augmentation", "mixup"),
        ("epochs", 0),
        ("val_fraction", 1.0),
        ("dropout", -0.1),
        ("crop", 0.0),
        ("start_size", 500),
        ("min_learning_rate", 1.0),
    ],
)
def test_a_recipe_that_cannot_be_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = replace(PAPER, model="resnet18", start_size=96, seed=7)
    (tmp_path / "recipe.json").write_bytes(to_json(recipe))
    assert read_recipe(tmp_path / "recipe.json") == recipe
    (tmp_path / "recipe.json").write_text('{"epochs": 3}')
    whole = json.loads(to_json(read_recipe(tmp_path / "recipe.json")))
    assert list(whole) == [field.name for field in fields(Recipe)]
    assert recipe.digest() != PAPER.digest()
    (tmp_path / "recipe.json").write_text('{"model": "resnet19"}')
    with pytest.raises(ValueError, match="resnet19"):
        read_recipe(tmp_path / "recipe.json")


def test_a_run_begins_with_anothers_weights(cells: Path, cache: Path, tmp_path: Path) -> None:
    manifest = manifest_from_folder(cells)
    recipe = replace(TINY, epochs=1, ema_decay=0.0)
    first = train(recipe, manifest, tmp_path / "first", cache=cache)
    still = replace(recipe, learning_rate=1e-12, min_learning_rate=0.0, weight_decay=0.0)
    second = train(still, manifest, tmp_path / "second", start_from=first.path, cache=cache)
    learnt, kept = load_file(first.best), load_file(second.best)
    names = [name for name in learnt if name.endswith("weight")]
    assert all(torch.allclose(learnt[name], kept[name], atol=1e-6) for name in names)
    assert second.start.read_bytes() == first.best.read_bytes()

    other = replace(recipe, model="resnet18")
    with pytest.raises(TrainingError, match="of another architecture"):
        train(other, manifest, tmp_path / "third", start_from=first.path, cache=cache)
    with pytest.raises(TrainingError, match="not a run with a finished epoch"):
        train(recipe, manifest, tmp_path / "fourth", start_from=tmp_path / "no", cache=cache)
    assert not (tmp_path / "fourth").exists()


def test_a_head_for_other_classes_begins_fresh(cells: Path, cache: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=1)
    first = train(recipe, manifest_from_folder(cells), tmp_path / "first", cache=cache)
    network = network_of(recipe, 5)
    head = network.head.weight.clone()
    load_start(network, first.best)
    assert torch.equal(network.head.weight, head)
    learnt = load_file(first.best)
    assert torch.equal(network.state_dict()["maps.0.0.weight"], learnt["maps.0.0.weight"])


def test_a_stain_normalising_run_makes_a_bundle(cells: Path, cache: Path, tmp_path: Path) -> None:
    """Exported with it, and torch and onnxruntime agree, or there were no bundle."""
    recipe = replace(TINY, epochs=1, normalise_stain=True, augmentation="sites")
    run = train(recipe, manifest_from_folder(cells), tmp_path / "run", cache=cache)
    (answer,) = Classifier(run.bundle).predict(next(cells.rglob("*.png")))
    assert answer.status == "ok"


def test_several_runs_become_an_ensemble(cells: Path, cache: Path, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        recipe = replace(TINY, epochs=1, seed=seed)
        path = tmp_path / str(seed)
        runs.append(train(recipe, manifest_from_folder(cells), path, cache=cache))
    bundle = ensemble_of(runs)
    own = bundle_of(runs[0]).card.recipe
    assert bundle.card.recipe == {name: own[name] for name in own if name != "seed"}
    assert bundle.card.parameters == 2 * read_bundle(runs[0].bundle).card.parameters
    (answer,) = Classifier(bundle).predict(next(cells.rglob("*.png")))
    assert answer.disagreement is not None
    wider = train(
        replace(TINY, epochs=1, image_size=96), manifest_from_folder(cells), tmp_path / "w",
        cache=cache,
    )  # fmt: skip
    with pytest.raises(ValueError, match="its classes or its input differ"):
        ensemble_of([runs[0], wider])


def test_cycles_begin_again_and_end_low() -> None:
    recipe = replace(TINY, epochs=8, warmup_epochs=1, cycles=3, start_size=None)
    assert [recipe.cycle_ending(epoch) for epoch in range(8)] == [
        None, None, 1, None, None, 2, None, 3,
    ]  # fmt: skip
    low, high = recipe.min_learning_rate, recipe.learning_rate
    for end in (3, 6):  # the last moment of a cycle, and the first of the next
        assert learning_rate(recipe, end - 1e-6) == pytest.approx(low, abs=1e-3 * high)
        assert learning_rate(recipe, end) == pytest.approx(high)
    assert learning_rate(recipe, 8) == pytest.approx(low)
    plain = replace(recipe, cycles=1)
    assert [plain.cycle_ending(epoch) for epoch in (0, 7)] == [None, 1]
    half = (1e-3 + plain.min_learning_rate) / 2
    assert learning_rate(replace(plain, learning_rate=1e-3), 4.5) == pytest.approx(half)
    for wrong, words in ((9, "cycles must be from 1 to 7"), (2, "cycles are the cosine's")):
        with pytest.raises(ValueError, match=words):
            replace(recipe, cycles=wrong, schedule="step" if wrong == 2 else "cosine")


def test_snapshots_of_one_run_become_an_ensemble(cells: Path, cache: Path, tmp_path: Path) -> None:
    manifest = manifest_from_folder(cells)
    run = train(replace(TINY, epochs=2, cycles=2), manifest, tmp_path / "run", cache=cache)
    first, last = (load_file(run.snapshot(cycle)) for cycle in (1, 2))
    assert any(not torch.equal(first[name], last[name]) for name in first)
    bundle = snapshots_of(run)
    assert bundle.card.architecture.count("+") == 1
    (answer,) = Classifier(bundle).predict(next(cells.rglob("*.png")))
    assert answer.disagreement is not None
    plain = train(replace(TINY, epochs=1), manifest, tmp_path / "plain", cache=cache)
    assert not plain.snapshot(1).exists()
    with pytest.raises(ValueError, match="has no snapshots; train with --cycles"):
        snapshots_of(plain)
