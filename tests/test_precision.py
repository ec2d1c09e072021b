"""The precision `auto`: what it becomes, where that is recorded; old recipes keep their names."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import manifest_from_folder
from hemascope.errors import HemascopeWarning
from hemascope.training import machine
from hemascope.training.machine import has_native_bf16, settle_precision, warn_of_slow_precision
from hemascope.training.recipe import PAPER, Recipe, read_recipe
from hemascope.training.run import train
from samples import two_classes

DOCS = Path(__file__).parents[1] / "docs"


def use_processor(
    monkeypatch: pytest.MonkeyPatch, *features: str, limit: str | None = None
) -> None:
    """A machine without a GPU, whose processor has these features."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    has = dict.fromkeys(features, True)
    monkeypatch.setattr(machine, "_processor_capabilities", lambda: has)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)


@pytest.mark.parametrize(
    ("features", "limit", "precision"),
    [
        (["avx2"], None, "fp32"),
        (["avx2", "avx512_f", "avx512_vnni"], None, "fp32"),
        (["avx2", "avx512_f", "avx512_bf16"], None, "bf16"),
        (["avx512_f", "amx_bf16"], None, "bf16"),
        (["neon", "bf16"], None, "bf16"),
        (["avx2", "avx512_f", "avx512_bf16"], "AVX2", "fp32"),
        (["avx2", "avx512_f", "avx512_bf16"], "AVX512_CORE_BF16", "bf16"),
    ],
)
def test_auto_is_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, features: list[str], limit: str | None, precision: str
) -> None:
    use_processor(monkeypatch, *features, limit=limit)
    assert settle_precision(Recipe()).precision == precision
    for said in ("fp32", "bf16", "fp16"):
        assert settle_precision(Recipe(precision=said)).precision == said


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_imitates_bf16_does_not_count(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or native

    monkeypatch.setattr("torch.cuda.is_bf16_supported", is_supported)
    assert has_native_bf16() is native


def test_a_slow_choice_is_obeyed_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    use_processor(monkeypatch, "avx2")
    with pytest.warns(HemascopeWarning, match="does not compute in bf16") as found:
        warn_of_slow_precision(Recipe(precision="bf16"))
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_slow_precision(Recipe(precision="fp32"))
        use_processor(monkeypatch, "avx512_bf16")
        warn_of_slow_precision(Recipe(precision="bf16"))


def test_old_recipes_keep_their_digests() -> None:
    """The folders of the study are named by them."""
    assert PAPER.digest() == "ca3d163bab05"
    assert replace(PAPER, seed=1).digest() == "4de86816d991"
    assert replace(PAPER, precision="fp32").digest() == "49625a928d8f"
    digests = {replace(PAPER, precision=name).digest() for name in ("auto", "fp32", "bf16", "fp16")}
    assert len(digests) == 4
    assert PAPER.precision == "bf16"


def test_committed_recipes_keep_what_they_were_run_with() -> None:
    for path in DOCS.glob("training/*/recipe.json"):
        assert read_recipe(path).precision == "bf16"


@pytest.mark.slow
def test_a_run_records_what_it_became_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cells").mkdir()
    manifest = manifest_from_folder(two_classes(tmp_path / "cells", 8))
    recipe = Recipe(model="efficientnet_lite", image_size=64, epochs=1, batch_size=8)
    use_processor(monkeypatch, "avx2")
    folder = train(recipe, manifest, tmp_path / "run", cache=tmp_path / "cache")
    use_processor(monkeypatch, "avx2", "avx512_bf16")  # another machine goes on with it
    train(recipe, manifest, tmp_path / "run", cache=tmp_path / "cache", resume=True)
    card = read_bundle(folder.bundle).card
    assert read_recipe(folder.recipe).precision == "fp32"
    assert (card.recipe["precision"], card.provenance["precision"]) == ("fp32", "fp32")
    assert int(card.provenance["threads"]) >= 1
