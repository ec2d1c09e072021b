"""Leave one laboratory out: recipes trained without it, and what they say of its cells.

    python benchmarks/leave_one_out.py cells.npz trials.json --out trials.npz

`cells.npz` comes from pack_laboratories.py; `trials.json` lists runs, each with a `name`, the
laboratory it is `without`, the changes of its `recipe`, its `seed`, the file of weights that it is
to `start` from (by default ImageNet's), and the names of runs that teach it, its `teachers`. What
is kept of a run is a mean of its weights and of those that it starts from, which have a
`start_share` of 0 by default; with 1, nothing is trained. With
`"auxiliary": true` and an `auxiliary_weight` in its recipe a run learns PBC's subtypes besides, and
the attributes of PBC's cells in the table of `--attributes` (WBCAtt's). Of PBC the split `test` is
never trained on, nor is a fifth of `pool`, which says how good a run is at home (`--score-test`: of
`test` as well). `summary.json` in the folder of the runs says what each run predicts, class by
class. Runs of one laboratory are done one after the other, those of different ones side by side
(`--at-once`), and none is begun after `--stop-after` seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hemascope.classes import BLOOD_CELLS
from hemascope.data.attributes import UNKNOWN, read_attributes
from hemascope.data.augment import to_images
from hemascope.data.auxiliary import AuxiliaryTargets, collect_targets
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.files import write_atomic
from hemascope.models.imagenet import imagenet_state
from hemascope.post_training.left_out import balanced_accuracy
from hemascope.processors import count_processors
from hemascope.training.allocator import keep_memory
from hemascope.training.folder import RunFolder
from hemascope.training.images import NO_CLASS, TrainingData
from hemascope.training.loop import fit, network_of
from hemascope.training.recipe import Recipe

SIZE, FRAME = 128, 182
NAMES = BLOOD_CELLS.names
BASE = Recipe(
    model="efficientnet_lite0",
    drop_rate=0.2,
    image_size=SIZE,
    crop=0.6,
    augmentation="domain_randomisation",
    val_fraction=0.0,
    epochs=8,
    images_per_epoch=7680,
    laboratory_balance=0.5,
    class_balance=0.5,
    batch_size=128,
    learning_rate=1.6e-3,
    warmup_epochs=1,
    weight_decay=0.02,
    ema_decay=0.99,
    precision="bf16",
)


class Cells:
    """All frames, and what is known of each."""

    def __init__(self, path: Path, attributes: Path | None = None) -> None:
        packed = np.load(path)
        decoded = path.with_suffix(".frames.npy")
        if not decoded.exists():
            np.save(decoded, self._decode(packed))
        self.frames = np.load(decoded, mmap_mode="r")
        self.labels, self.laboratories = packed["label"], packed["lab"]
        self.split, sha256 = packed["split"], packed["sha256"]
        self.targets = np.array([NAMES.index(x) if x in NAMES else NO_CLASS for x in self.labels])
        fifth = np.array([bool(x) and int(x[:8], 16) % 5 == 0 for x in sha256])
        pbc = self.laboratories == "pbc"
        self.test = pbc & (self.split == "test")
        self.home = pbc & (self.split == "pool") & fifth
        self.auxiliary = self._auxiliary_of(packed, attributes)
        self.fold = np.array([int(x[8:16], 16) % 5 if x else -1 for x in sha256])

    def _auxiliary_of(self, packed: Any, attributes: Path | None) -> AuxiliaryTargets:
        """The subtypes and attributes of PBC's cells; those of split `test` stay unknown."""
        pbc = self.laboratories == "pbc"
        rows = zip(packed["path"][pbc], self.labels[pbc], packed["subtype"][pbc], strict=True)
        manifest = Manifest(Path(), tuple(ManifestRow(*map(str, row)) for row in rows))
        table = None if attributes is None else read_attributes(attributes)
        found = collect_targets(manifest, BLOOD_CELLS, table)
        assert found is not None, "PBC has subtypes"
        indices = np.full((len(pbc), len(found.columns)), UNKNOWN)
        indices[pbc] = found.indices
        indices[self.test] = UNKNOWN
        return AuxiliaryTargets(found.columns, indices)

    @staticmethod
    def _decode(packed: Any) -> np.ndarray:
        offsets, blob = packed["offsets"], packed["blob"].tobytes()

        def decode(place: int) -> np.ndarray:
            with Image.open(io.BytesIO(blob[offsets[place] : offsets[place + 1]])) as image:
                return np.asarray(image.convert("RGB"))

        with ThreadPoolExecutor(count_processors()) as pool:
            return np.stack(list(pool.map(decode, range(len(offsets) - 1))))

    def training(self, without: str) -> np.ndarray:
        """Which frames a run trains on; `fold2` leaves out a fifth of all of PBC."""
        if without.startswith("fold"):
            left_out = (self.laboratories == "pbc") & (self.fold == int(without[4:]))
            return ~left_out
        return ~(self.test | self.home | (self.laboratories == without))

    def scored(self, without: str, with_test: bool) -> np.ndarray:
        """Which frames a run is asked about: those of what it left out, or else home's."""
        if without.startswith("fold"):
            return (self.laboratories == "pbc") & (self.fold == int(without[4:]))
        left_out = self.laboratories == without
        scored = left_out if left_out.any() else self.home
        return scored | self.test if with_test else scored


def run_laboratory(
    cells_path: Path,
    trials: list[dict[str, Any]],
    folder: Path,
    end: float,
    with_test: bool,
    train_only: bool,
    attributes: Path | None,
) -> list[str]:
    """Trains and scores the runs of one laboratory in turn."""
    keep_memory()
    cells = Cells(cells_path, attributes)
    done = []
    for trial in trials:
        if time.time() > end:
            break
        started = time.perf_counter()
        recipe = replace(BASE, **trial["recipe"], seed=trial.get("seed", 0))
        run = train_trial(cells, trial, recipe, folder)
        done.append(trial["name"])
        if not train_only:
            line = score(cells, trial, recipe, run, with_test)
            print(f"{trial['name']:28s} {line}  {time.perf_counter() - started:.0f} s", flush=True)
    return done


def train_trial(cells: Cells, trial: dict[str, Any], recipe: Recipe, folder: Path) -> RunFolder:
    """Trains one run on the cells of the other laboratories."""
    run = RunFolder(folder / trial["name"])
    run.path.mkdir(parents=True, exist_ok=True)
    chosen = cells.training(trial["without"])
    data = TrainingData(
        classes=BLOOD_CELLS,
        frames=cells.frames[chosen],
        targets=tuple(int(x) for x in cells.targets[chosen]),
        inner=SIZE / FRAME,
        val_images=None,
        val_targets=(),
        digest=trial["name"],
        laboratories=tuple(str(x) for x in cells.laboratories[chosen]),
        auxiliary=cells.auxiliary.select(chosen) if trial.get("auxiliary") else None,
    )
    if "start" in trial:
        copyfile(folder / trial["start"], run.start)
    elif trial.get("imagenet", True):
        save_file(imagenet_state_of(recipe.model), run.start)
    teachers = []
    for name in trial.get("teachers", ()):
        teacher_recipe = Recipe(**json.loads((folder / name / "recipe.json").read_text()))
        teacher = network_of(teacher_recipe, len(NAMES))
        teacher.load_state_dict(load_file(RunFolder(folder / name).best))
        teachers.append(teacher)
    (run.path / "recipe.json").write_text(
        json.dumps({k: getattr(recipe, k) for k in recipe.__dataclass_fields__})
    )
    start_share = trial.get("start_share", 0.0)
    if start_share < 1:
        fit(recipe, data, run, start=run.start if run.start.exists() else None, teachers=teachers)
    if start_share > 0:
        blend_weights(run, start_share)
    return run


def blend_weights(run: RunFolder, start_share: float) -> None:
    """Moves the run's best weights towards those that it started from.

    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
    """
    start = load_file(run.start)
    best = load_file(run.best) if start_share < 1 else start
    blended = {
        name: torch.lerp(best[name], start[name], start_share)
        if start[name].is_floating_point()
        else start[name]
        for name in start
    }
    save_file(blended, run.best)


def score(
    cells: Cells, trial: dict[str, Any], recipe: Recipe, run: RunFolder, with_test: bool
) -> str:
    """Keeps what a run says of the cells that it is asked about, in a line of accuracies."""
    network = network_of(recipe, len(NAMES))
    network.load_state_dict(load_file(run.best))
    index = np.flatnonzero(cells.scored(trial["without"], with_test))
    logits = predict_views(network, cells.frames[index])
    np.savez(run.path / "logits.npz", index=index, logits=logits.astype(np.float16))
    half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(run.best).items()}
    save_file(half, run.path / "half.safetensors")
    run.last.unlink()
    return summary(cells, trial["without"], index, logits)


def imagenet_state_of(model: str) -> dict[str, torch.Tensor]:
    """ImageNet's weights, from the package or, without it, from a file beside the cells."""
    path = Path(__file__).parents[1] / ".gpu" / f"{model}.safetensors"
    return load_file(path) if path.exists() else imagenet_state(model)


@torch.inference_mode()
def predict_views(network: torch.nn.Module, frames: np.ndarray) -> np.ndarray:
    """Logits (8,N,C) of the middle of each frame in its eight symmetries."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.eval().to(device)
    start = (FRAME - SIZE) // 2
    found = []
    for first in range(0, len(frames), 512):
        part = np.ascontiguousarray(
            frames[first : first + 512, start : start + SIZE, start : start + SIZE]
        )
        images = to_images(torch.from_numpy(part).to(device))
        views = []
        for turns in range(4):
            turned = torch.rot90(images, turns, (2, 3))
            views += [network(turned).float(), network(turned.flip(3)).float()]
        found.append(torch.stack(views).cpu().numpy())
    return np.concatenate(found, axis=1)


def summary(cells: Cells, without: str, index: np.ndarray, logits: np.ndarray) -> str:
    """Balanced accuracy of each laboratory among all classes, those with ten cells, one look."""
    texts = []
    for laboratory in dict.fromkeys(cells.laboratories[index]):
        here = (cells.laboratories[index] == laboratory) & (cells.targets[index] >= 0)
        targets = cells.targets[index][here]
        for name, answers in (("1", logits[0]), ("8", logits.mean(0))):
            accuracy = balanced_accuracy(answers[here].argmax(1), targets)
            texts.append(f"{laboratory}/{name} {accuracy:.3f}")
    return "  ".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--stop-after", type=float, default=1e9)
    parser.add_argument("--score-test", action="store_true")
    parser.add_argument("--train-only", action="store_true", help="leave the scoring to others")
    parser.add_argument("--attributes", type=Path, help="WBCAtt's attributes.csv")
    arguments = parser.parse_args()
    end = time.time() + arguments.stop_after
    queues: dict[str, list[dict[str, Any]]] = {}
    for trial in json.loads(arguments.trials.read_text()):
        queues.setdefault(trial.get("queue", trial["without"]), []).append(trial)
    Cells(arguments.cells)  # decodes all frames, once
    context = get_context("spawn")
    with ProcessPoolExecutor(arguments.at_once, mp_context=context) as pool:
        futures = [
            pool.submit(
                run_laboratory,
                arguments.cells,
                queue,
                arguments.out,
                end,
                arguments.score_test,
                arguments.train_only,
                arguments.attributes,
            )
            for queue in queues.values()
        ]
        for future in futures:
            future.result()
    write_summary(Cells(arguments.cells), arguments.out)


def write_summary(cells: Cells, folder: Path) -> None:
    """Of each run and laboratory: recall per class of one view, and of the mean of eight."""
    runs = {}
    for path in sorted(folder.glob("*/logits.npz")):
        scored = np.load(path)
        index, logits = scored["index"], scored["logits"].astype(np.float64)
        runs[path.parent.name] = {
            "recipe": json.loads((path.parent / "recipe.json").read_text()),
            "laboratories": {
                laboratory: {
                    "one_view": recalls(cells, index, logits[0], laboratory),
                    "eight_views": recalls(cells, index, logits.mean(0), laboratory),
                }
                for laboratory in dict.fromkeys(map(str, cells.laboratories[index]))
            },
        }
    write_atomic(folder / "summary.json", json.dumps(runs, indent=2) + "\n")


def recalls(cells: Cells, index: np.ndarray, logits: np.ndarray, laboratory: str) -> dict[str, Any]:
    """Recall per class among all eight, and the mean over the classes with ten cells or more."""
    here = (cells.laboratories[index] == laboratory) & (cells.targets[index] >= 0)
    targets, predicted = cells.targets[index][here], logits[here].argmax(1)
    counts = {
        NAMES[c]: (int((predicted[targets == c] == c).sum()), int((targets == c).sum()))
        for c in np.unique(targets)
    }
    return {
        "balanced_accuracy": balanced_accuracy(predicted, targets),
        "recall": {name: {"correct": k, "n": n} for name, (k, n) in counts.items()},
    }


if __name__ == "__main__":
    main()
