"""Training: runs that repeat, go on after a kill, share work between processes, and stop."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from drawn import draw_cell
from drawn_training import TINY
from hemascope.bundle.bundle import read_bundle
from hemascope.classes import BLOOD_CELLS, ClassSet
from hemascope.cli import app
from hemascope.data.manifest import (
    Manifest,
    ManifestRow,
    manifest_from_folder,
    read_manifest,
    write_manifest,
)
from hemascope.errors import HemascopeWarning, LeakageError, ManifestError, TrainingError
from hemascope.evaluation.evaluate import evaluate
from hemascope.inference.classifier import Classifier
from hemascope.preprocess import InputSpec
from hemascope.reports.pages import evaluation_page
from hemascope.serialization import to_json
from hemascope.training.export_runs import export_ensemble, export_run, export_snapshots
from hemascope.training.folder import RunFolder
from hemascope.training.images import NO_CLASS, TrainingData, prepare_data
from hemascope.training.loop import fit, load_start, network_of, target_table
from hemascope.training.optim import WeightAverage, learning_rate
from hemascope.training.recipe import PAPER, Recipe, read_recipe
from hemascope.training.run import train, warn_of_few_steps
from samples import two_classes


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in colour, 20 images each."""
    return two_classes(tmp_path_factory.mktemp("cells"), 20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "cache"


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder.last)


def same(one: RunFolder, other: RunFolder) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def trained(cells: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of six epochs, which no test changes."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(replace(TINY, epochs=6), manifest_from_folder(cells), out, cache=cache)


@pytest.fixture(scope="module")
def seeds(cells: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Three runs of one recipe but for their seeds, which are 1, 1 and 2."""
    out, manifest = tmp_path_factory.mktemp("seeds"), manifest_from_folder(cells)
    return [
        train(replace(TINY, seed=seed), manifest, out / name, cache=cache)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]


@pytest.mark.slow
def test_a_run_leaves_everything_in_its_folder(cells: Path, trained: RunFolder) -> None:
    folder = trained
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
    assert card.metrics[0].result.n == 10
    facts = json.loads(folder.provenance.read_text())
    assert (facts["train_images"], facts["val_images"]) == (30, 10)
    predictions = Classifier(folder.bundle).predict([cells / "orange" / "0.png"])
    assert predictions[0].label in card.classes.names


@pytest.mark.slow
def test_a_seed_gives_the_same_run_twice(seeds: list[RunFolder]) -> None:
    assert same(seeds[0], seeds[1])
    assert not same(seeds[0], seeds[2])


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(cells: Path, cache: Path, tmp_path: Path) -> None:
    recipe, manifest = replace(TINY, epochs=5), manifest_from_folder(cells)
    (tmp_path / "recipe.json").write_bytes(to_json(recipe))
    cut = RunFolder(tmp_path / "cut")
    words = ["train", cells, "--out", cut.path, "--cache", cache]
    process = subprocess.Popen(
        [sys.executable, "-m", "hemascope", *words, "--recipe", tmp_path / "recipe.json"],
        stdout=subprocess.DEVNULL,
    )
    while len(cut.read_metrics()) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(cut.read_metrics()) < 5
    assert not cut.bundle.exists()
    train(recipe, manifest, cut.path, cache=cache, resume=True)
    whole = train(recipe, manifest, tmp_path / "whole", cache=cache)
    assert same(whole, cut)
    losses = [[r.train_loss for r in run.read_metrics()] for run in (whole, cut)]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("model", ["simple_cnn", "resnet18", "deep_efficientnet"])
def test_every_model_and_precision_trains(
    cells: Path, cache: Path, tmp_path: Path, model: str, precision: str
) -> None:
    recipe = Recipe(**asdict(TINY) | {"model": model, "precision": precision, "epochs": 1})
    few = Manifest(cells, manifest_from_folder(cells).rows[::3])
    folder = train(recipe, few, tmp_path / "run", cache=cache)
    assert math.isfinite(folder.read_metrics()[0].train_loss)


@pytest.mark.slow
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


@pytest.mark.slow
def test_splits_of_the_manifest_are_used(cells: Path, cache: Path, tmp_path: Path) -> None:
    rows = [
        replace(row, split="val" if number % 4 == 0 else "train")
        for number, row in enumerate(manifest_from_folder(cells).rows)
    ]
    write_manifest(Manifest(cells, tuple(rows)), cells / "splits.csv", overwrite=True)
    recipe = replace(TINY, epochs=1)
    folder = train(recipe, Manifest(cells, tuple(rows)), tmp_path / "run", cache=cache)
    facts = json.loads(folder.provenance.read_text())
    assert (facts["train_images"], facts["val_images"]) == (30, 10)


@pytest.mark.slow
def test_a_folder_that_is_taken_is_refused(
    cells: Path, cache: Path, tmp_path: Path, trained: RunFolder
) -> None:
    manifest, out = manifest_from_folder(cells), trained.path
    with pytest.raises(TrainingError, match="--resume"):
        train(replace(TINY, epochs=6), manifest, out, cache=cache)
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(TINY, epochs=6, seed=9), manifest, out, cache=cache, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        train(TINY, manifest, tmp_path / "other", cache=cache)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused(
    cells: Path, cache: Path, tmp_path: Path, trained: RunFolder
) -> None:
    folder = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    folder.last.write_bytes(folder.last.read_bytes()[:-1000])
    recipe = replace(TINY, epochs=6)
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train(recipe, manifest_from_folder(cells), folder.path, cache=cache, resume=True)


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
        average.update()
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
        ("drop_rate", -0.1),
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


@pytest.mark.slow
def test_a_run_begins_with_anothers_weights(
    cells: Path, cache: Path, tmp_path: Path, trained: RunFolder
) -> None:
    manifest, first = manifest_from_folder(cells), trained
    recipe = replace(TINY, epochs=1, ema_decay=0.0)
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


@pytest.mark.slow
def test_a_head_for_other_classes_begins_fresh(trained: RunFolder) -> None:
    network = network_of(TINY, 5)
    head = network.head.weight.clone()
    load_start(network, trained.best)
    assert torch.equal(network.head.weight, head)
    learnt = load_file(trained.best)
    assert torch.equal(network.state_dict()["maps.0.0.weight"], learnt["maps.0.0.weight"])


@pytest.mark.slow
def test_a_stain_normalising_run_makes_a_bundle(cells: Path, cache: Path, tmp_path: Path) -> None:
    """Exported with it, and torch and onnxruntime agree, or there were no bundle."""
    recipe = replace(TINY, epochs=1, normalise_stain=True, augmentation="domain_randomisation")
    run = train(recipe, manifest_from_folder(cells), tmp_path / "run", cache=cache)
    (prediction,) = Classifier(run.bundle).predict(next(cells.rglob("*.png")))
    assert prediction.status == "ok"


@pytest.mark.slow
def test_several_runs_become_an_ensemble(
    cells: Path, tmp_path: Path, seeds: list[RunFolder]
) -> None:
    runs = seeds[1:]
    bundle = export_ensemble(runs)
    own = export_run(runs[0]).card.recipe
    assert bundle.card.recipe == {name: own[name] for name in own if name != "seed"}
    assert bundle.card.parameters == 2 * read_bundle(runs[0].bundle).card.parameters
    (prediction,) = Classifier(bundle).predict(next(cells.rglob("*.png")))
    assert prediction.disagreement is not None
    wider = RunFolder(shutil.copytree(runs[1].path, tmp_path / "wider"))
    wider.recipe.write_bytes(to_json(replace(read_recipe(wider.recipe), image_size=96)))
    with pytest.raises(ValueError, match="its classes or its input differ"):
        export_ensemble([runs[0], wider])


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


@pytest.mark.slow
def test_snapshots_of_one_run_become_an_ensemble(
    cells: Path, cache: Path, tmp_path: Path, trained: RunFolder
) -> None:
    manifest = manifest_from_folder(cells)
    run = train(replace(TINY, epochs=2, cycles=2), manifest, tmp_path / "run", cache=cache)
    first, last = (load_file(run.snapshot(cycle)) for cycle in (1, 2))
    assert any(not torch.equal(first[name], last[name]) for name in first)
    bundle = export_snapshots(run)
    assert bundle.card.architecture.count("+") == 1
    (prediction,) = Classifier(bundle).predict(next(cells.rglob("*.png")))
    assert prediction.disagreement is not None
    assert not trained.snapshot(1).exists()
    with pytest.raises(ValueError, match="has no snapshots; train with --cycles"):
        export_snapshots(trained)


def test_a_recipe_in_old_words_is_still_read(tmp_path: Path) -> None:
    """And has the digest that it had, by which folders of studies are named."""
    path = tmp_path / "recipe.json"
    path.write_text(
        '{"dropout": 0.2, "stochastic_depth": 0.1, "enlarge": 1.5, "augmentation": "sites", '
        '"precision": "bf16"}'
    )
    recipe = read_recipe(path)
    assert recipe == Recipe(
        drop_rate=0.2,
        drop_path_rate=0.1,
        input_upscale=1.5,
        augmentation="domain_randomisation",
        precision="bf16",
    )
    assert recipe.digest() == "73de56c78efd"


def test_laboratories_and_classes_are_drawn_by_a_power_of_their_number() -> None:
    targets, places = (0,) * 60 + (1,) * 20 + (0,) * 15 + (1,) * 5, ("a",) * 80 + ("b",) * 20
    frames = np.zeros((100, 8, 8, 3), np.uint8)
    data = TrainingData(BLOOD_CELLS, frames, targets, 1.0, None, (), "drawn", places)

    def shares(**changes: float) -> list[float]:
        weights = data.weights(Recipe(images_per_epoch=50, **changes))  # type: ignore[arg-type]
        assert weights is not None
        assert weights.sum() == pytest.approx(50)
        groups = [(0, 60), (60, 80), (80, 95), (95, 100)]
        return [float(weights[start:end].sum()) / 50 for start, end in groups]

    assert data.weights(Recipe()) is None
    assert shares() == pytest.approx([0.6, 0.2, 0.15, 0.05])
    assert shares(laboratory_balance=1) == pytest.approx([3 / 8, 1 / 8, 3 / 8, 1 / 8])
    assert shares(laboratory_balance=1, class_balance=1) == pytest.approx([1 / 4] * 4)
    half = [80**0.5, 20**0.5]
    assert shares(laboratory_balance=0.5)[0] == pytest.approx(0.75 * half[0] / sum(half))


def test_targets_are_smoothed_and_what_is_no_class_is_all_alike() -> None:
    table = target_table(4, 0.2)
    assert table[2].tolist() == pytest.approx([0.05, 0.05, 0.85, 0.05])
    assert table[NO_CLASS].tolist() == pytest.approx([0.25] * 4)


@pytest.mark.slow
def test_a_teacher_is_learnt_from(cells: Path, cache: Path, tmp_path: Path) -> None:
    """A network whose target is all a teacher's answers as the teacher does, labels or not."""

    class Teacher(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([5.0, 0.0]).expand(len(images), 2)

    recipe = replace(TINY, teacher_weight=1.0, epochs=12, mixup=0.5, label_smoothing=0.0)
    data = prepare_data(recipe, manifest_from_folder(cells), cache)
    fit(recipe, data, RunFolder(tmp_path), teachers=[Teacher()])
    assert data.val_images is not None
    assert set(data.val_targets) == {0, 1}
    losses = [record.train_loss for record in RunFolder(tmp_path).read_metrics()]
    assert losses[-1] < 0.5 < losses[0]
    # Its validation images of the other class are named as the teacher names them.
    assert RunFolder(tmp_path).read_metrics()[-1].val_accuracy == pytest.approx(0.5, abs=0.01)


@pytest.fixture(scope="module")
def laboratories(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Drawn cells of two laboratories: one cell per image, and several in fields half as fine."""
    root = tmp_path_factory.mktemp("laboratories")
    rows = []
    for label in ("lymphocyte", "neutrophil"):
        for seed in range(12):
            path = f"one/{label}{seed}.png"
            (root / path).parent.mkdir(exist_ok=True)
            draw_cell(label, seed).save(root / path)
            rows.append(ManifestRow(path, label, laboratory="one", um_per_pixel=0.1))
    (root / "two").mkdir()
    for seed in range(6):
        field = Image.new("RGB", (400, 200), (250, 235, 215))
        for k, label in enumerate(("lymphocyte", "neutrophil", "smudge")):
            if label != "smudge":
                cell = draw_cell(label, 100 + seed, size=180)
                field.paste(cell, (10 + 200 * k, 10))
            place = {"x": 100.0 + 200 * k if k < 2 else 200.0, "y": 100.0}
            rows.append(
                ManifestRow(
                    f"two/{seed}.png", label, laboratory="two", group=str(seed // 2),
                    um_per_pixel=0.2, **place,
                )
            )  # fmt: skip
        field.save(root / "two" / f"{seed}.png")
    return Manifest(root, tuple(rows))


SCALED = replace(TINY, crop=0.6, microns=21.6)
CLASSES = ClassSet.from_names(("lymphocyte", "neutrophil"))


@pytest.mark.slow
def test_cells_of_two_scales_are_as_large_in_their_frames(
    laboratories: Manifest, cache: Path
) -> None:
    data = prepare_data(replace(SCALED, val_fraction=0.0), laboratories, cache, CLASSES)
    assert data.laboratories == tuple(row.laboratory for row in laboratories.rows)
    assert data.targets.count(NO_CLASS) == 6
    assert data.frames.shape[1:] == (91, 91, 3)  # 64 pixels of 21.6 µm, times √2
    assert data.inner == pytest.approx(1 / 1.42)
    for row, frame in zip(laboratories.rows, data.frames, strict=True):
        spec = InputSpec(91, 0.852, 21.6 * 1.42)
        assert np.array_equal(frame, spec.load(row.view(laboratories.root)))
    dark = (np.asarray(data.frames)[..., 1] < 130).sum(axis=(1, 2))
    sizes = {
        laboratory: np.median([
            size
            for size, row in zip(dark, laboratories.rows, strict=True)
            if (row.laboratory, row.label) == (laboratory, "lymphocyte")
        ])
        for laboratory in ("one", "two")
    }  # fmt: skip
    assert sizes["one"] == pytest.approx(sizes["two"], rel=0.2)  # pixels are four times as many


@pytest.mark.slow
def test_a_run_learns_from_two_laboratories_and_from_outliers(
    laboratories: Manifest, cache: Path, tmp_path: Path
) -> None:
    run = train(SCALED, laboratories, tmp_path / "run", classes=CLASSES, cache=cache)
    facts = json.loads(run.provenance.read_text())
    data = prepare_data(SCALED, laboratories, cache, CLASSES)
    assert facts["outliers"] == data.targets.count(NO_CLASS) > 0
    assert NO_CLASS not in data.val_targets
    assert len(data.val_targets) == facts["val_images"] > 0
    card = read_bundle(run.bundle).card
    assert card.classes == CLASSES
    assert card.input == InputSpec(64, 0.6, 21.6)
    assert f"{facts['outliers']} of them of no class" in card.training_data
    with pytest.raises(ValueError, match=r"the model sees 21\.6 µm; leave --image-microns out"):
        export_run(run, image_microns=36.0)
    cells, _ = laboratories.separate_outliers(CLASSES)
    exchanged = {"lymphocyte": "neutrophil", "neutrophil": "lymphocyte"}
    swapped = replace(
        cells, rows=tuple(replace(row, label=exchanged[row.label]) for row in cells.rows)
    )
    mistakes = []
    for manifest in (cells, swapped):  # a cell is a mistake in one of them
        found = evaluate(Classifier(run.bundle), manifest, "both")
        assert found.site is not None
        assert found.site.um_per_pixel == 0.1
        page = evaluation_page(found, Classifier(run.bundle), manifest, [])
        assert all(mistake.path in page for mistake in found.mistakes)
        mistakes += [mistake.path for mistake in found.mistakes]
    assert sorted(mistakes) == sorted(cells.names())
    assert "two/0.png (300, 100)" in mistakes


@pytest.mark.slow
def test_a_scale_needs_a_recipe_that_knows_its_own(laboratories: Manifest, cache: Path) -> None:
    with pytest.raises(ManifestError, match=r"\d+\.png: its um_per_pixel is given, but"):
        prepare_data(TINY, laboratories, cache, CLASSES)
    with pytest.raises(ValueError, match="microns must be from 1 to 100, not 160"):
        replace(TINY, microns=160.0)


def test_the_target_of_no_class_is_all_classes_alike() -> None:
    table = target_table(4, 0.2)
    assert table[NO_CLASS].tolist() == pytest.approx([0.25] * 4)
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    library = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2)
    ours = torch.nn.functional.cross_entropy(logits, table[targets])
    assert ours.item() == pytest.approx(library.item(), rel=1e-6)


@pytest.mark.slow
def test_the_command_line_says_which_labels_are_outliers(
    laboratories: Manifest, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = laboratories.root / "all.csv"
    write_manifest(laboratories, table, overwrite=True)
    words = ["train", str(table), "--out", str(tmp_path / "run"), "--cache", str(cache)]
    recipe = tmp_path / "recipe.json"
    recipe.write_bytes(to_json(replace(SCALED, epochs=1)))
    words += ["--recipe", str(recipe), "--classes"]
    with pytest.raises(ValueError, match="--classes names 'lymfocyte', but no image has that"):
        app([*words, "lymfocyte,neutrophil"], result_action="return_value", exit_on_error=False)
    assert app([*words, "neutrophil, lymphocyte"], result_action="return_value") == 0
    assert "outliers, of none of the classes: smudge 6" in capsys.readouterr().out
    card = read_bundle(tmp_path / "run" / "bundle").card
    assert card.classes.names == ("neutrophil", "lymphocyte")
    split = tmp_path / "split.csv"
    with pytest.raises(ManifestError, match="write the manifest in the images' folder"):
        app(
            ["data", "split", str(table), "--out", str(split), "--leave-out", "two"],
            result_action="return_value",
            exit_on_error=False,
        )
    split = laboratories.root / "split.csv"
    split_words = ["data", "split", str(table), "--out", str(split), "--leave-out", "two"]
    assert app([*split_words, "--force"], result_action="return_value") == 0
    rows = read_manifest(split).rows
    assert Counter((row.laboratory, row.split) for row in rows) == {
        ("one", "train"): 24,
        ("two", "external"): 18,
    }
    assert [replace(row, split="", sha256="") for row in rows] == list(laboratories.rows)


@pytest.mark.slow
def test_a_run_is_taught_by_another_run(
    cells: Path, cache: Path, tmp_path: Path, trained: RunFolder
) -> None:
    recipe = replace(read_recipe(trained.recipe), teacher_weight=0.5, epochs=1, cycles=1)
    manifest = manifest_from_folder(cells)
    run = train(recipe, manifest, tmp_path / "run", teachers=[trained.path], cache=cache)
    assert read_recipe(run.recipe).teacher_weight == 0.5
    with pytest.raises(TrainingError, match="teachers and teacher_weight go together"):
        train(recipe, manifest, tmp_path / "none", cache=cache)
    with pytest.raises(TrainingError, match="no such recipe"):
        train(recipe, manifest, tmp_path / "none", teachers=[tmp_path], cache=cache)
    other = replace(recipe, crop=0.7)
    with pytest.raises(TrainingError, match="the same classes, crop and microns"):
        train(other, manifest, tmp_path / "none", teachers=[trained.path], cache=cache)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("images", "changes", "steps"),
    [
        (46, {"epochs": 6, "batch_size": 64}, 6),
        (46, {"epochs": 4, "batch_size": 10}, 16),
        (1000, {"epochs": 1, "batch_size": 20, "images_per_epoch": 200}, 10),
    ],
)
def test_a_run_of_too_few_steps_is_warned_of(
    images: int, changes: dict[str, int], steps: int
) -> None:
    with pytest.warns(HemascopeWarning, match=rf"give {steps} steps in {changes['epochs']} epochs"):
        warn_of_few_steps(replace(TINY, **changes), images)


def test_a_run_of_enough_steps_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_few_steps(replace(TINY, epochs=25, batch_size=8), 46)
