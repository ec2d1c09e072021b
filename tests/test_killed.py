"""Killed at any change of the file system, a run is finished by --resume, which leaves nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hemascope import Classifier
from hemascope.batch import local
from hemascope.batch.finished import ENDS
from hemascope.batch.inputs import find_images
from hemascope.batch.local import Tally, classify_to
from hemascope.bundle.bundle import CARD_FILE, read_bundle, write_bundle
from hemascope.data.manifest import manifest_from_folder
from hemascope.errors import TrainingError
from hemascope.files import write_atomic
from hemascope.training.recipe import Recipe
from samples import noise_files, two_classes

IMAGES, PART = 20, 8
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open"}
KILLED = 9
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run_killed_at(change: int, folder: Path, work: Callable[[], object]) -> bool:
    """Works in a child that ends before its n-th change below a folder; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = change

        def count(event: str, details: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES and str(details[0]).startswith(str(folder)):
                reads = event == "open" and not (int(str(details[2])) & (os.O_CREAT | os.O_WRONLY))
                left -= not reads
                if left == 0:
                    os._exit(KILLED)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet", "p"])
def test_classify(
    tiny_bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SHARD_ROWS", PART)
    images = noise_files(tmp_path, IMAGES, 3)
    classifier, paths = Classifier(tiny_bundle, threads=1), find_images([str(images)])
    expected = classify_to(tmp_path / "expected" / name, classifier, paths)
    change, was_killed = 0, True
    while was_killed:
        change += 1
        folder = tmp_path / str(change)
        folder.mkdir()
        out = folder / name

        def work(out: Path = out, resume: bool = False) -> Tally:
            return classify_to(out, classifier, paths, resume=resume)

        was_killed = run_killed_at(change, folder, work)
        assert work(resume=True) == expected
        assert [path.name for path in folder.iterdir()] == [name]
        assert not list(folder.rglob(".*")) + list(folder.rglob("_*"))
        if out.is_file() and name != "p.parquet":
            assert out.read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert change > 10  # so many moments were tried


def test_a_whole_table_of_other_images_is_not_taken_for_this_one(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    images = noise_files(tmp_path, IMAGES, 3)
    classifier, paths = Classifier(tiny_bundle, threads=1), find_images([str(images)])
    out = tmp_path / "out" / "p.csv"
    classify_to(out, classifier, paths)
    assert len(paths) > 2 * ENDS + 1  # there is a middle, of which nothing is predicted again
    middle = [*paths[:ENDS], paths[0], *paths[ENDS + 1 :]]
    others = [
        paths[1:],
        [*paths[:-1], paths[0]],
        [paths[1], *paths[1:]],
        middle,
        [*paths, paths[0]],
    ]
    for other in others:
        with pytest.raises(ValueError, match="exists already"):
            classify_to(out, classifier, other, resume=True)
    bundle = read_bundle(tiny_bundle)
    changed = replace(bundle, card=replace(bundle.card, temperature=1e-4))
    with pytest.raises(ValueError, match="exists already"):
        classify_to(out, Classifier(changed, threads=1), paths, resume=True)


@pytest.mark.slow
def test_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    """Written again, which is refused only where it was written whole."""
    bundle = read_bundle(tiny_bundle)
    change, was_killed = 0, True
    while was_killed:
        change += 1
        folder = tmp_path / str(change)
        was_killed = run_killed_at(change, folder, lambda at=folder: write_bundle(bundle, at))
        if not (folder / CARD_FILE).exists():
            write_bundle(bundle, folder)
        assert read_bundle(folder).card == bundle.card
        assert not list(folder.rglob(".*"))
    assert change > 4


@pytest.mark.slow
def test_train(tmp_path: Path) -> None:
    from hemascope.training.run import train

    (tmp_path / "cells").mkdir()
    manifest = manifest_from_folder(two_classes(tmp_path / "cells", 8))
    recipe = Recipe(
        model="efficientnet_lite", image_size=64, epochs=1, batch_size=8, val_fraction=0.25
    )
    begun = tmp_path / "begun"
    write_atomic(begun / "start.safetensors", b"")  # killed before its recipe was there
    write_atomic(begun / ".recipe.json.0123abcd.json", b"half")
    (begun / "start.safetensors").unlink()
    folder = train(recipe, manifest, begun, cache=tmp_path / "cache")
    card = read_bundle(folder.bundle).card
    # Killed while the bundle was written: its card is missing, and half a file is there.
    (folder.bundle / CARD_FILE).unlink()
    (folder.path / ".curves.png.0123abcd.png").write_bytes(b"half")
    (folder.bundle / ".card.json.0123abcd.json").write_bytes(b"half")
    train(recipe, manifest, begun, cache=tmp_path / "cache", resume=True)
    assert read_bundle(folder.bundle).card.model_sha256 == card.model_sha256
    assert not list(begun.rglob(".*"))
    mine = tmp_path / "mine"
    write_atomic(mine / "notes.txt", b"keep")
    with pytest.raises(TrainingError, match="not empty and not a run"):
        train(recipe, manifest, mine, cache=tmp_path / "cache")
