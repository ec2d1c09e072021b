"""Subtypes and attributes learnt besides the class: their loss, their files, and nothing without
a weight."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from drawn_training import TINY as TWO_EPOCHS
from drawn_training import drawn_data
from hemascope.attributes import ATTRIBUTES
from hemascope.classes import BLOOD_CELLS, ClassSet
from hemascope.cli import app
from hemascope.data.attributes import read_attributes
from hemascope.data.auxiliary import AuxiliaryColumn, collect_targets
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import ManifestError, TrainingError
from hemascope.models import MODELS, create_model
from hemascope.serialization import to_json
from hemascope.subtypes import name_subtype, stage_of
from hemascope.training import loop
from hemascope.training.auxiliary import WithAuxiliary, auxiliary_loss
from hemascope.training.folder import EpochRecord, RunFolder
from hemascope.training.loop import Run
from hemascope.training.recipe import Recipe
from hemascope.training.run import train
from samples import two_classes

TINY = replace(TWO_EPOCHS, epochs=3)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images each, and a table of attributes of half of them."""
    folder = two_classes(tmp_path_factory.mktemp("cells"), 20)
    with (folder / "attributes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img_name", "label", "nucleus_shape", "granularity"])
        for path in sorted(folder.glob("*/*.png"))[::2]:
            path = path.rename(path.with_name(f"{path.parent.name}{path.name}"))
            shape = "unsegmented-round" if path.parent.name == "violet" else "irregular"
            writer.writerow([path.name, path.parent.name, shape, ""])
    return folder


def manifest_of(cells: Path, subtypes: bool = True) -> Manifest:
    """The cells, of which the first half of each class are of another subtype than the others."""
    paths = sorted(path.relative_to(cells).as_posix() for path in cells.glob("*/*.png"))
    rows = [
        ManifestRow(
            path, path.split("/")[0], subtype=("first", "other")[n % 20 < 10] if subtypes else ""
        )
        for n, path in enumerate(paths)
    ]
    return Manifest(cells, tuple(rows))


def test_the_loss_is_that_of_a_loop_over_all_that_is_known() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 5, generator=random)
    targets = torch.tensor([[0, 1], [2, -1], [-1, -1], [1, 0], [-1, 1], [2, 1]])
    losses = []
    for row, (shape, size) in zip(logits.double(), targets.tolist(), strict=True):
        if shape >= 0:
            losses.append(row[:3].exp().sum().log() - row[shape])
        if size >= 0:
            losses.append(row[3:].exp().sum().log() - row[3 + size])
    total, number = auxiliary_loss(logits, targets, (3, 2))
    assert number == len(losses) == 8
    assert total.item() == pytest.approx(float(sum(losses)), rel=1e-5)


def test_nothing_known_gives_no_loss_and_no_gradient() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    total, number = auxiliary_loss(logits, torch.full((4, 2), -1), (3, 2))
    (total / number.clamp(min=1)).backward()  # type: ignore[no-untyped-call]
    assert total == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_auxiliary_logits_behind_those_of_the_class(name: str) -> None:
    network = create_model(name, 3).eval()
    images = torch.rand(2, 3, 64, 64)
    outputs = WithAuxiliary(network, [2, 4]).eval()(images)
    assert outputs.shape == (2, 3 + 2 + 4)
    torch.testing.assert_close(outputs[:, :3], network(images))


@pytest.mark.slow
def test_a_step_adds_the_weighted_mean_to_the_loss_of_the_class() -> None:
    """And the gradient of the features is that of both."""
    data = drawn_data()
    recipe = replace(TINY, val_fraction=0.0, auxiliary_weight=0.5, drop_rate=0.0, clip_norm=0.0)
    run = Run(recipe, data)
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert data.auxiliary is not None
    known = np.column_stack([data.targets[:8], data.auxiliary.indices[:8]])
    run.learner.train()
    state = torch.get_rng_state()
    with torch.no_grad():
        outputs = run.learner(images)
    run.learner.load_state_dict(Run(recipe, data).learner.state_dict())  # statistics as before
    torch.set_rng_state(state)
    classes = torch.nn.functional.cross_entropy(
        outputs[:, :3], torch.tensor(known[:, 0]), label_smoothing=recipe.label_smoothing
    )
    total, number = auxiliary_loss(outputs[:, 3:], torch.tensor(known[:, 1:]), (3, 2))
    result = run._step(*run._with_targets(images, torch.tensor(known)))
    assert (result[0] / 8).item() == pytest.approx(
        (classes + 0.5 * total / number).item(), rel=1e-5
    )


def test_mixed_images_have_no_auxiliary_targets() -> None:
    run = Run(replace(TINY, val_fraction=0.0, auxiliary_weight=1.0, mixup=1.0), drawn_data())
    known = torch.tensor([[0, 1, 1], [1, 2, 0]])
    assert (run._with_targets(torch.rand(2, 3, 64, 64), known)[2] == -1).all()
    unmixed = Run(replace(TINY, val_fraction=0.0, auxiliary_weight=1.0), drawn_data())
    assert torch.equal(unmixed._with_targets(torch.rand(2, 3, 64, 64), known)[2], known[:, 1:])


@pytest.mark.slow
def test_what_is_learnt_besides_is_learnt() -> None:
    """The first column says the class, so its loss falls with it."""
    recipe = replace(
        TINY, val_fraction=0.0, auxiliary_weight=1.0, epochs=20, augmentation="none", ema_decay=0.0
    )
    data = drawn_data()
    run = Run(recipe, data)
    assert data.auxiliary is not None
    for epoch in range(recipe.epochs):
        run.train_epoch(epoch, None)
    run.learner.eval()
    with torch.no_grad():
        outputs = run.learner(torch.from_numpy(data.frames).permute(0, 3, 1, 2) / 255)
    known = data.auxiliary.indices[:, 0]
    right = outputs[:, 3:6].argmax(1).numpy() == known
    assert right[known >= 0].mean() > 0.8


@pytest.mark.slow
def test_without_a_weight_a_run_is_as_if_nothing_else_were_known() -> None:
    recipe = replace(TINY, val_fraction=0.0)
    states = []
    for data in (drawn_data(), replace(drawn_data(), auxiliary=None)):
        run = Run(recipe, data)
        loss = run.train_epoch(0, None)
        states.append((loss, run.network.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(states[0][1][name], value) for name, value in states[1][1].items())


def test_the_digest_of_a_recipe_without_a_weight_is_as_it_was() -> None:
    assert Recipe().digest() == replace(Recipe(), auxiliary_weight=0.0).digest()
    assert TINY.digest() == "0e1f424a16dc"
    assert replace(TINY, auxiliary_weight=0.1).digest() != TINY.digest()


def test_subtypes_are_told_apart_within_their_class() -> None:
    rows = [
        ManifestRow("a", "neutrophil", "BNE"),
        ManifestRow("b", "neutrophil", "SNE"),
        ManifestRow("c", "neutrophil", "NEUTROPHIL"),
        ManifestRow("d", "ig", "MMY"),
        ManifestRow("e", "ig", "IG"),
        ManifestRow("f", "ig", "PMO"),
        ManifestRow("g", "monocyte", "MO"),
        ManifestRow("h", "smudge", "X"),
    ]
    found = collect_targets(Manifest(Path(), tuple(rows)), BLOOD_CELLS)
    assert found is not None
    assert found.columns == (
        AuxiliaryColumn("subtype of ig", ("metamyelocyte", "promyelocyte")),
        AuxiliaryColumn("subtype of neutrophil", ("band neutrophil", "segmented neutrophil")),
    )
    assert found.indices.tolist() == [
        *([-1, 0], [-1, 1], [-1, -1], [0, -1], [-1, -1], [1, -1], [-1, -1], [-1, -1])
    ]
    assert collect_targets(Manifest(Path(), tuple(rows[6:])), BLOOD_CELLS) is None


def test_codes_become_names_within_their_class_only() -> None:
    neutrophil = BLOOD_CELLS.classes[BLOOD_CELLS.index("neutrophil")]
    assert name_subtype("sne", neutrophil) == "segmented neutrophil"
    assert name_subtype("MY", neutrophil) == "MY"
    assert name_subtype("Neutrophils", neutrophil) == ""
    assert stage_of("segmented neutrophil") == 4
    assert stage_of("blast") is None


def stop_after(epochs: int) -> loop.OnEpoch:
    def stop(record: EpochRecord) -> None:
        if record.epoch == epochs:
            raise KeyboardInterrupt

    return stop


@pytest.mark.slow
def test_a_resumed_run_comes_to_the_same_layer(cells: Path, tmp_path: Path) -> None:
    recipe, manifest = replace(TINY, auxiliary_weight=0.5), manifest_of(cells)
    table = read_attributes(cells / "attributes.csv")

    def go_on(name: str, on_epoch: loop.OnEpoch | None = None) -> RunFolder:
        return train(
            recipe,
            manifest,
            tmp_path / name,
            attributes=table,
            cache=tmp_path / "cache",
            resume=True,
            on_epoch=on_epoch,
        )

    with pytest.raises(KeyboardInterrupt):
        go_on("cut", stop_after(1))
    cut, whole = go_on("cut"), go_on("whole")
    for file in ("last", "best", "auxiliary"):
        first, second = (load_file(getattr(run, file)) for run in (cut, whole))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), file
    assert not any(name.startswith("auxiliary") for name in load_file(whole.best))
    with safe_open(whole.auxiliary, framework="pt") as file_of_layer:
        columns = file_of_layer.metadata()["columns"]
    assert "subtype of orange" in columns
    assert "nucleus_shape" in columns
    with pytest.raises(TrainingError, match="of other images"):
        train(recipe, manifest, cut.path, cache=tmp_path / "cache", resume=True)


def test_a_weight_and_something_to_weigh_go_together(cells: Path, tmp_path: Path) -> None:
    table, cache = read_attributes(cells / "attributes.csv"), tmp_path / "cache"
    with pytest.raises(TrainingError, match="only with an auxiliary_weight"):
        train(TINY, manifest_of(cells), tmp_path / "run", attributes=table, cache=cache)
    weighted = replace(TINY, auxiliary_weight=0.5)
    with pytest.raises(TrainingError, match="no class of two or more subtypes"):
        train(weighted, manifest_of(cells, subtypes=False), tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_line_learns_attributes(cells: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_bytes(to_json(replace(TINY, epochs=1, auxiliary_weight=0.5, val_fraction=0.0)))
    words = ["train", str(cells), "--out", str(tmp_path / "run"), "--recipe", str(recipe)]
    words += ["--cache", str(tmp_path / "cache"), "--attributes"]
    with pytest.raises(ManifestError, match="cannot be read"):
        app([*words, str(cells / "none.csv")], exit_on_error=False)
    done = app([*words, str(cells / "attributes.csv")], result_action="return_value")
    assert done == 0
    layer = load_file(RunFolder(tmp_path / "run").auxiliary)
    assert layer["weight"].shape[0] == sum(len(a.values) for a in ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,cell_size\na.png,big\n", "must name the columns img_name"),
        ("img_name,label\na.png,x\n", "must name the columns img_name"),
        ("img_name,cell_size\na.png,huge\n", "line 2: cell_size cannot be 'huge'"),
        ("img_name,cell_size\na.png,big\na.png,big\n", "line 3: 'a.png' is listed a second"),
        ("img_name,cell_size\n,big\n", "img_name is empty"),
        ("img_name,cell_size\n", "lists no images"),
    ],
)
def test_a_table_that_says_something_impossible_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_attributes(path)


def test_a_table_of_other_images_is_refused() -> None:
    manifest = Manifest(Path(), (ManifestRow("x/a.png", "one"), ManifestRow("y/a.png", "two")))
    classes = ClassSet.from_names(("one", "two"))
    with pytest.raises(ManifestError, match="names none of the images"):
        collect_targets(manifest, classes, {"b.png": (0,) * 11})
    with pytest.raises(ManifestError, match="have the same file name"):
        collect_targets(manifest, classes, {"a.png": (0,) * 11})
