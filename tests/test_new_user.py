"""What a new user is told: unlike images, folders with some of the classes, the guides' steps."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_cell, draw_folder
from hemascope import Classifier
from hemascope.batch.tally import Outcome, tally_of
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.classes import ClassSet
from hemascope.cli import app, main
from hemascope.cli.options import ImageOptions
from hemascope.data.check import check
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from hemascope.data.open_manifest import open_manifest
from hemascope.errors import ManifestError
from hemascope.metrics.class_subset import measure_present
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION
from samples import mask_of, shrink

ROOT = Path(__file__).parents[1]
PRETRAINED = ROOT / "src" / "hemascope" / "pretrained"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]

# Only main() reads sys.argv, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")


@pytest.fixture
def hemascope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, called in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hemascope", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() sets its own
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def outcomes(unlike: int, alike: int) -> Counter[Outcome]:
    """So many platelets that are unlike the training cells, and so many that are like them."""
    flagged: Outcome = ("platelet", True, f"{OUT_OF_DISTRIBUTION}|blurred", None)
    fine: Outcome = ("platelet", False, None, None)
    return Counter({flagged: unlike, fine: alike, (None, None, None, None): 50})


def bundle_without_laboratories() -> Bundle:
    bundle = read_bundle()
    model = bundle.card.uncertainty
    assert model is not None
    return replace(bundle, card=replace(bundle.card, uncertainty=replace(model, laboratories=None)))


def test_most_cells_must_be_unlike_before_anything_is_said() -> None:
    bundle = bundle_without_laboratories()
    assert tally_of(outcomes(5, 5), bundle).describe_difference() == ""
    assert tally_of(Counter(), bundle).describe_difference() == ""
    said = tally_of(outcomes(6, 5), bundle).describe_difference()
    assert said.startswith("6 of 11 cells")
    assert said.index("--um-per-pixel") < said.index("stain") < said.index("hemascope evaluate")
    assert "hemascope adapt" in said


def test_the_advice_knows_which_scale_was_given_and_whether_one_can_be() -> None:
    bundle = bundle_without_laboratories()
    tally = tally_of(outcomes(9, 0), bundle)
    assert "--um-per-pixel 0.25 right?" in tally.describe_difference(0.25)
    card = replace(bundle.card, input=replace(bundle.card.input, microns=None))
    without = replace(bundle, card=card)
    assert "--um-per-pixel" not in tally_of(outcomes(9, 0), without).describe_difference()


def test_another_laboratorys_bitmaps_are_said_to_differ(tmp_path: Path, hemascope: Command) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.bmp")
    page = tmp_path / "p.html"
    done = hemascope("classify", tmp_path, "--out", tmp_path / "p.csv", "--report", page)
    assert done.returncode == 0, done.stderr
    said = "these images are not of a laboratory that the model knows (3 unknown"
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert said in page.read_text(encoding="utf-8")


def test_drawn_cells_are_not_said_to_differ(tmp_path: Path, hemascope: Command) -> None:
    draw_folder(tmp_path / "cells", per_class=1)
    page = tmp_path / "p.html"
    done = hemascope("classify", tmp_path / "cells", "--out", tmp_path / "p.csv", "--report", page)
    assert done.returncode == 0, done.stderr
    assert "differ from the training images" not in done.stderr + page.read_text(encoding="utf-8")


def test_present_classes_have_figures_of_their_own() -> None:
    names = ("a", "b", "c")
    scores = np.array([[0.3, 0.2, 0.5], [0.6, 0.3, 0.1], [0.1, 0.4, 0.5], [0.1, 0.8, 0.1]])
    found = measure_present(names, scores, np.array([0, 0, 1, 1]))
    assert found is not None
    assert found.classes == ("a", "b")
    assert (found.accuracy.successes, found.accuracy.n) == (4, 4)
    one_wrong = measure_present(names, scores, np.array([0, 1, 1, 1]))
    assert one_wrong is not None
    assert one_wrong.balanced_accuracy.value == pytest.approx((1 + 2 / 3) / 2)
    assert measure_present(names, scores, np.array([0, 1, 2, 1])) is None  # nothing is missing
    assert measure_present(names, scores, np.array([1, 1, 1, 1])) is None  # no choice is left


@pytest.mark.slow
@pytest.mark.parametrize("present", [("monocyte", "neutrophil", "platelet"), ("platelet",)])
def test_evaluate_leads_with_the_classes_that_are_there(
    tmp_path: Path, present: tuple[str, ...], hemascope: Command
) -> None:
    draw_folder(tmp_path / "all", per_class=2)
    (tmp_path / "some").mkdir()
    for name in present:
        (tmp_path / "all" / name).rename(tmp_path / "some" / name)
    done = hemascope("evaluate", tmp_path / "some", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lead = f"{len(present)} of the model's 8 classes are there: {', '.join(present)}"
    scale, _, rest = done.stdout.partition("\n")
    assert "scale of the training images" in scale
    assert rest.startswith(lead)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for text in (done.stdout, page):
        assert text.index(lead) < text.index("all 8 classes") < text.index("macro F1")
        assert (f"these {len(present)} only" in text) == (len(present) > 1)
    written = json.loads((tmp_path / "out/evaluation.json").read_bytes())
    assert {"accuracy", "balanced_accuracy", "macro_f1", "macro_auroc"} < written.keys()
    assert (written["among_present"] is None) == (len(present) == 1)


@pytest.mark.slow
def test_evaluate_of_all_classes_says_nothing_of_present_ones(
    tmp_path: Path, hemascope: Command
) -> None:
    draw_folder(tmp_path / "all", per_class=1)
    done = hemascope("evaluate", tmp_path / "all", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "classes are there" not in done.stdout + page
    assert "<th>accuracy</th><th>balanced accuracy</th><th>macro F1</th>" in page


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("class numbers", "png"), ("colours", "png"), ("one bit", "png"), ("grey", "jpg")],
)
def test_masks_beside_cells_are_found(tmp_path: Path, kind: str, suffix: str) -> None:
    draw_folder(tmp_path, per_class=2)
    mask_of(kind).save(tmp_path / "monocyte" / f"monocyte_0_mask.{suffix}")
    assert check(open_manifest(tmp_path)).masks == (f"monocyte/monocyte_0_mask.{suffix}",)


def test_masks_are_named_by_data_check(tmp_path: Path, hemascope: Command) -> None:
    draw_folder(tmp_path, per_class=1)
    mask_of("grey").save(tmp_path / "monocyte" / "mask.png")
    done = hemascope("data", "check", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images that look like masks, not cells: 1\n" in done.stdout
    assert "masks: monocyte/mask.png" in done.stdout


def test_photographs_of_cells_are_no_masks(real_data: Path) -> None:
    cells = Manifest(
        real_data,
        tuple(
            ManifestRow(path.relative_to(real_data).as_posix(), "cell")
            for site in ("munich/neutrophil", "jiangxi/images")
            for path in sorted((real_data / site).glob("*.*"))[:15]
        ),
    )
    masks = Manifest(
        real_data,
        tuple(
            ManifestRow(path.relative_to(real_data).as_posix(), "mask")
            for path in sorted((real_data / "jiangxi/masks").glob("*.png"))[:15]
        ),
    )
    assert check(cells).masks == ()
    assert len(check(masks).masks) == 15


def test_a_bundle_works_with_onnxruntime_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's program gives the probabilities of a Classifier."""
    page = (ROOT / "docs/concepts/bundle_format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    classifier = Classifier()
    classifier.save_pretrained(tmp_path / "bundle")
    Image.fromarray(np.asarray(draw_cell("monocyte", seed=3))).save(tmp_path / "cell.png")
    monkeypatch.chdir(tmp_path)
    found: dict[str, dict[str, float]] = {}
    exec(compile(code, "bundle_format.md", "exec"), found)
    (prediction,) = classifier.predict("cell.png")
    assert prediction.uncertainty is not None
    assert prediction.uncertainty.in_distribution  # else the fallback model predicts
    assert found["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)


def test_split_sets_images_aside_for_calibration(tmp_path: Path, hemascope: Command) -> None:
    for label in ("mine", "yours"):
        (tmp_path / label).mkdir()
        for number in range(100):
            (tmp_path / label / f"{number}.png").write_bytes(f"{label}{number}".encode())
    out = tmp_path / "splits.csv"
    parts = ("--test", 0.2, "--val", 0.1, "--pool", 0.2)
    done = hemascope("data", "split", tmp_path, "--out", out, *parts)
    assert done.returncode == 0, done.stderr
    counts = Counter((row.label, row.split) for row in read_manifest(out).rows)
    wanted = {"train": 50, "val": 10, "test": 20, "pool": 20}
    assert counts == {(c, s): n for c in ("mine", "yours") for s, n in wanted.items()}


@pytest.mark.slow
def test_calibration_sees_cells_at_the_scale_that_is_given(
    drawn_cells: Path, tmp_path: Path
) -> None:
    """As from a manifest with the scale; without it, the fitted limits are others."""
    shrink(drawn_cells, tmp_path / "cells", 120)
    whole = open_manifest(tmp_path / "cells")
    write_manifest(whole.fill_scale(0.2), tmp_path / "cells" / "scaled.csv")
    cells, scaled = tmp_path / "cells", tmp_path / "cells" / "scaled.csv"
    (tmp_path / "bundle").mkdir()
    for name in ("card.json", "model.onnx", "uncertainty.safetensors"):
        shutil.copy(PRETRAINED / name, tmp_path / "bundle")
    card = json.loads((tmp_path / "bundle/card.json").read_bytes())
    card["fallback_sha256"] = None
    (tmp_path / "bundle/card.json").write_text(json.dumps(card))
    fits = {"option": (cells, "--um-per-pixel", 0.2), "manifest": (scaled,), "none": (cells,)}
    temperatures = {}
    for name, arguments in fits.items():
        options = ("--bundle", tmp_path / "bundle", "--out", tmp_path / name)
        words = [str(word) for word in ("calibrate", *arguments, *options)]
        assert app(words, result_action="return_value") == 0
        temperatures[name] = json.loads((tmp_path / name / "card.json").read_bytes())["temperature"]
    assert temperatures["option"] == temperatures["manifest"] != temperatures["none"]


@pytest.mark.parametrize(
    "name",
    ["masks/0.png", "Mask/0.png", "ig/0_mask.png", "ig/ground truth/0.png"],
)
def test_files_named_like_masks_are_noted(tmp_path: Path, name: str) -> None:
    for path in (name, "ig/IG_1.png", "my_seg/masked man.png", "my_seg/damask.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    (note,) = [note for note in open_manifest(tmp_path).notes if "masks" in note]
    assert note.startswith(f"1 image is named like segmentation masks ({name}) and counts as cell")


def test_classify_says_that_masks_are_among_the_cells(tmp_path: Path, hemascope: Command) -> None:
    names = ("a.png", "a_mask.png", "b_mask.png")
    for name in names:
        draw_cell("monocyte", 0).save(tmp_path / name)
    done = hemascope("classify", tmp_path, "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    said = f"2 images are named like segmentation masks ({tmp_path / names[1]}) and count as cells"
    assert said.replace(" ", "") in "".join(done.stderr.split())


def test_split_warns_of_classes_too_small_to_calibrate(tmp_path: Path, hemascope: Command) -> None:
    draw_folder(tmp_path / "cells", per_class=6)
    out = tmp_path / "cells" / "splits.csv"
    done = hemascope("data", "split", tmp_path / "cells", "--out", out, "--pool", 0.5)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stderr.split())
    assert "3 of basophil, " in text
    assert "20 of each class are needed" in text
    out.unlink()
    done = hemascope("data", "split", tmp_path / "cells", "--out", out)
    assert "warning" not in done.stderr  # nobody asked for a pool


def outlier_manifest(folder: Path) -> Path:
    """Two drawn cells per class, in other spellings too, and three labelled as no class at all."""
    drawn = draw_folder(folder / "cells", per_class=2)
    rows = [ManifestRow(path.relative_to(folder).as_posix(), path.parent.name) for path in drawn]
    others = [replace(row, label="artefact") for row in rows[:3]]
    rows = [replace(row, label=row.label.upper()) for row in rows[3:]]
    write_manifest(Manifest(folder, (*rows, *others)), folder / "cells.csv")
    return folder / "cells.csv"


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "adapt", "fit-morphology"])
def test_a_label_of_no_class_is_an_error_that_names_the_way_out(
    tmp_path: Path, command: str, hemascope: Command
) -> None:
    done = hemascope(command, outlier_manifest(tmp_path), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "unknown class 'artefact'" in done.stderr
    assert "--skip-outliers leaves images of other labels out" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_outliers_of_training_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hemascope: Command
) -> None:
    manifest = outlier_manifest(tmp_path)
    done = hemascope("evaluate", manifest, "--skip-outliers", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 cells are of none of the model's classes and are left out: artefact 3" in done.stdout
    assert json.loads((tmp_path / "out/evaluation.json").read_bytes())["n"] == 13
    bundle = Classifier().bundle
    images = ImageOptions(skip_outliers=True).select(manifest, bundle)
    assert {row.label for row in images.rows} <= set(bundle.card.classes.names)
    assert len(images.rows) == 13
    assert "artefact 3" in capsys.readouterr().out
    with pytest.raises(ManifestError, match="no image is of a class of the model"):
        ImageOptions(skip_outliers=True).select(manifest, bundle, ClassSet.from_names(["a", "b"]))
