"""What training without labels brings where few cells are labelled.

    python benchmarks/few_labels.py cells.npz runs/few --out docs/evaluation/few_labels.json

`cells.npz` comes from pack_laboratories.py. Networks start from random weights, from ImageNet's,
and from weights that `pretrain` made of PBC's cells without their labels (splits train and pool,
never test). Of split train so many cells per class are labelled, drawn with several seeds, and each
start is judged as a linear probe, a logistic regression on its features, and by fine-tuning. Scores
are balanced accuracies on PBC's split test and on laboratories that no step has seen. All that is
done is kept in the folder of the runs, from which the command goes on: `--tune 10 50 --tune-draws
5` adds the fine-tuning that is still missing. Needs the extras `train`, `evaluate` and `imagenet`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import t as student

from hemascope.classes import BLOOD_CELLS
from hemascope.data.augment import POLICIES, augment
from hemascope.files import atomic_path, sha256_of, write_atomic
from hemascope.models.imagenet import imagenet_state
from hemascope.models.network import CellNetwork
from hemascope.post_training.fit_morphology import fit_layer
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.training.folder import RunFolder
from hemascope.training.images import TrainingData
from hemascope.training.loop import fit, load_start, network_of
from hemascope.training.pretrain import PretrainFacts, fit_pretrain
from hemascope.training.pretrain_images import PretrainData
from hemascope.training.pretrain_recipe import PretrainRecipe
from hemascope.training.recipe import Recipe
from leave_one_out import FRAME, NAMES, SIZE, Cells

MODEL, SIDE = "efficientnet_mini", 96
INNER = SIZE / FRAME
LABORATORIES = ("jiangxi", "bccd", "munich")
LEAST = 10  # cells of a class of a laboratory whose recall is counted
EACH, DRAWS = (10, 20, 50, 400), 5
RESAMPLES = 2000
TUNE_STEPS = 60  # of the optimiser, however many cells are labelled
TUNE = {
    "model": MODEL,
    "image_size": SIDE,
    "drop_rate": 0.2,
    "drop_path_rate": 0.1,
    "augmentation": "any_rotation",
    "val_fraction": 0.0,
    "learning_rate": 1e-3,
    "weight_decay": 0.02,
    "ema_decay": 0.98,
    "precision": "bf16",
}


def pretraining(method: str, epochs: int, batch_size: int) -> PretrainRecipe:
    """The recipe of a method such as moco, or with a policy of its own, as moco-laboratories."""
    name, _, policy = method.partition("-")
    return PretrainRecipe(
        method=name,  # type: ignore[arg-type]
        model=MODEL,
        image_size=SIDE,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=5e-4,
        augmentation=policy or "any_rotation",  # type: ignore[arg-type]
        queue=1024,
        precision="bf16",
    )


class Starts:
    """The weights that networks start from, by name; each is made when it is first asked for."""

    def __init__(self, cells: Cells, runs: Path, unlabelled: int | None, **length: int) -> None:
        self.cells, self.runs, self.number, self.length = cells, runs, unlabelled, length

    def path(self, name: str) -> Path | None:
        """The file of a start's weights; None for random ones. A start such as imagenet_simclr is
        another one, trained on without labels."""
        if name == "scratch":
            return None
        if name == "imagenet":
            path = self.runs / "imagenet.safetensors"
            if not path.exists():
                with atomic_path(path) as temporary:
                    save_file(imagenet_state(MODEL), temporary)
            return path
        before, method = name.rsplit("_", 1)
        if method == "statistics":
            return self._renormalised(before)
        folder, recipe = RunFolder(self.runs / name), pretraining(method, **self.length)
        if len(folder.read_metrics()) < recipe.epochs:
            start = self.path(before)
            if start is not None:
                write_atomic(folder.start, start.read_bytes())
            data = self.unlabelled()
            write_atomic(folder.recipe, to_json(recipe))
            facts = PretrainFacts(len(data.frames), 0, data.digest, provenance(data.digest))
            write_atomic(folder.provenance, to_json(facts))
            started = time.process_time()
            fit_pretrain(recipe, data, folder, print, _print_step)
            write_atomic(
                folder.path / "processor_seconds.json", to_json(time.process_time() - started)
            )
        return folder.best

    def _renormalised(self, before: str) -> Path:
        """A start that normalises by the statistics of the unlabelled cells, and learns nothing:
        the part of what training without labels does that needs no loss."""
        path = self.runs / f"{before}_statistics.safetensors"
        if not path.exists():
            network, frames = self.network(before).train(), self.unlabelled().frames
            with torch.inference_mode():
                for first in range(0, len(frames) - 31, 32):
                    batch = torch.from_numpy(frames[first : first + 32])
                    network(augment(batch, SIDE, INNER, POLICIES["any_rotation"]))
            state = {name: value.contiguous() for name, value in network.state_dict().items()}
            with atomic_path(path) as temporary:
                save_file(state, temporary)
        return path

    def unlabelled(self) -> PretrainData:
        """PBC's cells, but for split test, without their labels."""
        cells = self.cells
        usable = (cells.laboratories == "pbc") & np.isin(cells.split, ("train", "pool"))
        assert not (usable & cells.test).any()
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(usable))[: self.number]
        frames = cells.frames[np.sort(drawn)]
        return PretrainData(frames, INNER, sha256_of(frames.tobytes()))

    def network(self, name: str) -> CellNetwork:
        torch.manual_seed(0)
        network = network_of(Recipe(**TUNE), len(NAMES))
        path = self.path(name)
        if path is not None:
            load_start(network, path)
        return network.eval()


def _print_step(done: int, steps: int) -> None:
    print(f"step {done}/{steps}", flush=True)


@torch.inference_mode()
def embed(network: CellNetwork, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (N,F) and logits (N,C) of the middle of frames (N,F,F,3)."""
    features, logits = [], []
    for first in range(0, len(frames), 64):
        batch = torch.from_numpy(np.array(frames[first : first + 64]))
        found = network.outputs(augment(batch, SIDE, INNER, POLICIES["none"]))
        features.append(found.features.numpy())
        logits.append(found.logits.numpy())
    return np.concatenate(features), np.concatenate(logits)


class Judge:
    """What is scored: PBC's split test, and the cells of other laboratories with enough of them."""

    def __init__(self, cells: Cells) -> None:
        places = {"test": np.flatnonzero(cells.test)}
        for name in LABORATORIES:
            there = (cells.laboratories == name) & (cells.targets >= 0)
            counts = np.bincount(cells.targets[there], minlength=len(NAMES))
            places[name] = np.flatnonzero(there & (counts[cells.targets] >= LEAST))
        self.sizes = {name: len(rows) for name, rows in places.items()}
        rows = np.concatenate(list(places.values()))
        self.frames = np.asarray(cells.frames[rows])
        self.targets = cells.targets[rows]
        self.names = np.repeat(list(places), list(self.sizes.values()))

    def score(self, named: np.ndarray) -> dict[str, dict[str, float]]:
        """Balanced accuracy by place, with its bootstrap interval over the cells."""
        return {name: self._score(named, self.names == name) for name in self.sizes}

    def _score(self, named: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
        right, targets = (named == self.targets)[chosen], self.targets[chosen]
        random = np.random.default_rng(0)
        groups = [right[targets == k] for k in np.unique(targets)]
        resampled = np.mean(
            [random.binomial(len(g), g.mean(), RESAMPLES) / len(g) for g in groups], axis=0
        )
        low, high = np.quantile(resampled, (0.025, 0.975)).tolist()
        return {"value": float(np.mean([g.mean() for g in groups])), "low": low, "high": high}


def draw(cells: Cells, each: int, seed: int) -> np.ndarray:
    """Rows of so many cells of each class of PBC's split train."""
    train = (cells.laboratories == "pbc") & (cells.split == "train")
    random = np.random.default_rng(seed)
    groups = (random.permutation(np.flatnonzero(train & (cells.targets == k))) for k in range(8))
    return np.concatenate([np.sort(group[:each]) for group in groups])


def features_of(start: str, starts: Starts, judge: Judge, cells: Cells) -> dict[str, np.ndarray]:
    """A start's features of all cells of split train and of all that are judged."""
    path = starts.runs / f"features_{start}.npz"
    if not path.exists():
        network = starts.network(start)
        train = draw(cells, 400, 0)
        train_features, _ = embed(network, cells.frames[train])
        judged_features, _ = embed(network, judge.frames)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=train, train=train_features, judged=judged_features)
    return dict(np.load(path))


def probe(start: str, each: int, seed: int, starts: Starts, judge: Judge, cells: Cells) -> Any:
    """The scores of a logistic regression on the features of the labelled cells."""
    found = features_of(start, starts, judge, cells)
    chosen = np.isin(found["rows"], draw(cells, each, seed))
    layer = fit_layer(found["train"][chosen], cells.targets[found["rows"][chosen]], len(NAMES))
    return judge.score(layer.logits(found["judged"].astype(np.float64)).argmax(axis=1))


def tune(start: str, each: int, seed: int, starts: Starts, judge: Judge, cells: Cells) -> Any:
    """The scores of the whole network, trained on the labelled cells."""
    rows = draw(cells, each, seed)
    batch = min(32, len(rows))
    recipe = Recipe(
        **TUNE, batch_size=batch, epochs=max(1, round(TUNE_STEPS / (len(rows) // batch))), seed=seed
    )
    targets = tuple(cells.targets[rows].tolist())
    frames = cells.frames[rows]
    data = TrainingData(BLOOD_CELLS, frames, targets, INNER, None, (), sha256_of(frames.tobytes()))
    folder = RunFolder(starts.runs / "tuned" / f"{start}_{each}_{seed}")
    write_atomic(folder.recipe, to_json(recipe))
    fit(recipe, data, folder, start=starts.path(start))
    network = network_of(recipe, len(NAMES))
    network.load_state_dict(load_file(folder.best))
    return judge.score(embed(network.eval(), judge.frames)[1].argmax(axis=1))


def summarise(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per way, start and number of labelled cells: means over draws, with Student's 95 %
    interval over the draws; of a single draw, the bootstrap's over the cells."""
    rows: dict[tuple[str, str, int], list[Any]] = {}
    for key, score in sorted(scores.items()):
        way, start, each, _ = key.split("/")
        rows.setdefault((way, start, int(each)), []).append(score)
    result = []
    for (way, start, each), found in sorted(rows.items()):
        row: dict[str, Any] = {"way": way, "start": start, "each": each, "draws": len(found)}
        for place in found[0]:
            values = np.array([score[place]["value"] for score in found])
            if len(values) == 1:
                row[place] = found[0][place]
                continue
            spread = values.std(ddof=1) / np.sqrt(len(values))
            half = float(student.ppf(0.975, len(values) - 1) * spread)
            mean = float(values.mean())
            row[place] = {"value": mean, "low": mean - half, "high": min(1.0, mean + half)}
        result.append(row)
    return result


def facts_of(starts: Starts, names: list[str]) -> list[dict[str, Any]]:
    """How each start that was trained without labels came to be."""
    facts = []
    for name in names:
        folder = RunFolder(starts.runs / name)
        if folder.metrics.exists():
            records = folder.read_metrics()
            facts.append(
                {
                    "start": name,
                    "recipe": json.loads(folder.recipe.read_bytes()),
                    "images": json.loads(folder.provenance.read_bytes())["images"],
                    "loss": [record.train_loss for record in records],
                    "own_view_found": [record.train_accuracy for record in records],
                    "seconds": [record.seconds for record in records],
                    "processor_seconds": json.loads(
                        (folder.path / "processor_seconds.json").read_bytes()
                    ),
                }
            )
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--starts", nargs="*", default=["scratch", "imagenet", "imagenet_simclr"])
    parser.add_argument("--epochs", type=int, default=1, help="of training without labels")
    parser.add_argument("--batch-size", type=int, default=128, help="the same")
    parser.add_argument("--unlabelled", type=int, help="cells; by default all of train and pool")
    parser.add_argument("--tune", type=int, nargs="*", default=[], help="cells per class")
    parser.add_argument("--tune-draws", type=int, default=1)
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    cells = Cells(arguments.cells)
    judge, starts = (
        Judge(cells),
        Starts(
            cells,
            arguments.runs,
            arguments.unlabelled,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
        ),
    )
    kept = arguments.runs / "scores.json"
    scores = json.loads(kept.read_bytes()) if kept.exists() else {}
    # All cells of split train are one draw only.
    wanted = [("probe", probe, each, DRAWS if each < 400 else 1) for each in EACH] + [
        ("tune", tune, each, arguments.tune_draws if each < 400 else 1) for each in arguments.tune
    ]
    for way, measure, each, draws in wanted:
        for start in arguments.starts:
            for seed in range(draws):
                key = f"{way}/{start}/{each}/{seed}"
                if key not in scores:
                    scores[key] = measure(start, each, seed, starts, judge, cells)
                    write_atomic(kept, to_json(scores))
                    print(
                        key, {k: round(v["value"], 3) for k, v in scores[key].items()}, flush=True
                    )
    write_atomic(
        arguments.out,
        to_json(
            {
                "model": MODEL,
                "image_size": SIDE,
                "judged": judge.sizes,
                "pretrained": facts_of(starts, arguments.starts),
                "scores": summarise(scores),
                "tuning": TUNE | {"steps": TUNE_STEPS},
                "provenance": provenance(sha256_of(judge.frames.tobytes())),
            }
        ),
    )


if __name__ == "__main__":
    main()
