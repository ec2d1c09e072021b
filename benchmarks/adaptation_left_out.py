"""What `adapt` and `survey` gain in laboratories that a network was trained without.

    python benchmarks/adaptation_left_out.py cells.npz runs jiangxi munich bccd \
        --cache features --out docs/evaluation/adaptation_left_out.json

`cells.npz` comes from pack_laboratories.py, and `runs` holds the runs of leave_one_out.py, two
seeds for each laboratory that they were trained without. What each pair of networks gives for that
laboratory's cells is kept in the folder `features`. All values that a fit begins with (temperature,
thresholds, limit of distance) are fitted to the other laboratories. Needs the extras `train` and
`evaluate`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from hemascope.bundle.adaptation import CellMeasures
from hemascope.bundle.heads import Head, Heads
from hemascope.bundle.tta import symmetries
from hemascope.evaluation.choose_cells import choose_cells
from hemascope.files import write_atomic
from hemascope.metrics.intervals import wilson
from hemascope.post_training.adapt import CellFit, fit_cells
from hemascope.post_training.check_cells import VIEWS
from hemascope.post_training.few_cells import General, fit_few_cells
from hemascope.post_training.left_out import LeftOutCells, fit_left_out
from hemascope.post_training.views import draw_views
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.uncertainty.image_quality import fit_quality, measure_quality
from hemascope.uncertainty.image_style import measure_style
from hemascope.uncertainty.known_features import KnownFeatures, fit_known_features
from hemascope.uncertainty.model import UncertaintyModel, assess
from hemascope.uncertainty.ood import OODDetector, fit_cell_detector
from hemascope.uncertainty.temperature import softmax
from leave_one_out import NAMES, SIZE, Cells
from left_out_cells import head_of, images_of, join, known_cells, outputs_of, read_seeds

LEAST = 10  # cells of a class whose recall is counted
BLASTS = (10, 20, 50)
BUDGET = 40


@dataclass(frozen=True)
class Site:
    """A laboratory's cells, N, as the networks that never saw it give them."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    measures: CellMeasures
    turned: np.ndarray  # features in the eight symmetries (8,N,F)
    heads: Heads
    detector: OODDetector
    known: KnownFeatures

    @property
    def shared(self) -> np.ndarray:
        """The classes with enough cells."""
        counts = np.bincount(self.targets[self.targets >= 0], minlength=len(NAMES))
        return np.flatnonzero(counts >= LEAST)

    def choose(self, rows: np.ndarray, targets: np.ndarray) -> CellMeasures:
        part, all_cells = np.asarray(rows), self.measures
        return CellMeasures(
            all_cells.features[part],
            all_cells.style_statistics[part],
            all_cells.style[part],
            all_cells.quality[part],
            tuple(targets[part].tolist()),
        )


def read_site(cells: Cells, runs: Path, name: str, cache: Path) -> Site:
    """Asks the network, or reads what it gave before."""
    network, _ = read_seeds(runs, name)
    there = cells.laboratories == name
    images, path = images_of(cells, there), cache / f"{name}.npz"
    if not path.exists():
        cache.mkdir(exist_ok=True)
        known = known_cells(cells, name)
        _, features, style = outputs_of(network, images)
        frames = cells.frames[np.flatnonzero(there)]
        drawn = np.concatenate([draw_views(frame, VIEWS - 1, SIZE) for frame in frames])
        views = outputs_of(network, drawn)[1].reshape(len(images), VIEWS - 1, -1)
        turned = [outputs_of(network, way)[1] for way in symmetries(images)]
        np.savez(
            path,
            features=np.concatenate([features[:, None], views], axis=1),
            style_statistics=style,
            turned=np.stack(turned),
            known=outputs_of(network, images_of(cells, known))[1],
            known_targets=cells.targets[known],
        )
    kept = np.load(path)
    heads = Heads(tuple(head_of(member) for member in network.networks))
    measures = CellMeasures(
        kept["features"],
        kept["style_statistics"],
        measure_style(images),
        np.stack(measure_quality(images), axis=1),
        tuple(cells.targets[there].tolist()),
    )
    return Site(
        name,
        images,
        cells.labels[there],
        cells.targets[there],
        measures,
        kept["turned"],
        heads,
        fit_cell_detector(kept["known"], kept["known_targets"], 0.0),
        fit_known_features(kept["known"], kept["known_targets"], NAMES, heads.widths),
    )


def said_of(site: Site) -> LeftOutCells:
    features = site.measures.features[:, 0]
    distances = site.detector.standardise_cells(features)
    return LeftOutCells(site.heads(features), distances, site.targets, (site.name,) * len(features))


def general_of(site: Site, others: list[Site]) -> tuple[General, Heads]:
    """What the model is before it is adapted, from the other laboratories alone."""
    known = join(map(said_of, others))
    fit = fit_left_out(known, NAMES)
    model = UncertaintyModel(
        calibrated_on="other laboratories, left out in turn",
        images=len(known.targets),
        set_threshold=fit.set_threshold,
        class_thresholds=fit.class_thresholds,
        least_probability=fit.least_probability,
        ood_detector=replace(site.detector, mean_limit=fit.distance_limit),
        quality=fit_quality([measure_quality(other.images) for other in others], 0.002),
    )
    heads = [Head(h.weight, h.bias + np.array(fit.offsets)) for h in site.heads.members]
    return General(fit.temperature, model), Heads(tuple(heads))


def balanced(logits: np.ndarray, targets: np.ndarray, columns: np.ndarray) -> float:
    """Mean recall of the classes of the targets, when one of the columns is named."""
    named = columns[logits[:, columns].argmax(axis=1)]
    return float(np.mean([(named[targets == k] == k).mean() for k in np.unique(targets)]))


def draw_each(site: Site, each: int, random: np.random.Generator) -> np.ndarray:
    """So many cells of each shared class, and at most half of them."""
    groups = (random.permutation(np.flatnonzero(site.targets == k)) for k in site.shared)
    return np.concatenate([group[: min(each, len(group) // 2)] for group in groups])


def measure_fit(site: Site, rows: np.ndarray, general: General, fit: CellFit) -> dict[str, float]:
    """How a fit to some cells does on the others of the shared classes."""
    rest = np.isin(site.targets, site.shared)
    rest[rows] = False
    targets, every = site.targets[rest], np.arange(len(NAMES))
    one = fit.heads(site.measures.features[rest, 0])
    eight = np.mean([fit.heads(turned[rest]) for turned in site.turned], axis=0)
    temperature, model = fit_few_cells(
        fit.held_out, fit.folds, site.choose(rows, site.targets), general, site.name
    )
    probabilities = softmax(one, temperature)
    assessed = assess(
        model,
        probabilities,
        site.measures.features[rest, 0],
        site.measures.style_statistics[rest],
        site.images[rest],
    )
    review = np.array([bool(reasons) for reasons in assessed.reasons])
    right = probabilities.argmax(axis=1) == targets
    own = assessed.sets[np.arange(len(targets)), targets]
    return {
        "one_look": balanced(one, targets, every),
        "eight_looks": balanced(eight, targets, every),
        "one_look_among_shared": balanced(one, targets, site.shared),
        "eight_looks_among_shared": balanced(eight, targets, site.shared),
        "accuracy": float(right.mean()),
        "calibration_error": calibration_error(probabilities, right),
        "temperature": temperature,
        "to_review": float(review.mean()),
        "unlike": float((assessed.ood_scores > 1).mean()),
        "right_of_rest": float(right[~review].mean()) if (~review).any() else 1.0,
        "in_sets": float(own.mean()),
    }


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error, in ten bins of equally many cells."""
    sure = probabilities.max(axis=1)
    parts = np.array_split(np.argsort(sure, kind="stable"), 10)
    gaps = [abs(sure[part].mean() - right[part].mean()) * len(part) for part in parts]
    return float(np.sum(gaps) / len(sure))


def over_draws(found: list[dict[str, float]]) -> dict[str, Any]:
    """Means over draws, with Student's 95 % interval, which is of the draws."""
    count = len(found)
    result = {}
    for key in found[0]:
        values = np.array([each[key] for each in found])
        half = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
        mean = float(values.mean())
        result[key] = {"mean": mean, "low": mean - half, "high": mean + half}
    return {"draws": count, **result}


def fit_to(site: Site, rows: np.ndarray, old: Heads) -> CellFit:
    return fit_cells(site.choose(rows, site.targets), old, site.known.members(NAMES))


def ten_per_class(site: Site, general: General, old: Heads, draws: int, each: int) -> Any:
    drawn = [draw_each(site, each, np.random.default_rng(seed)) for seed in range(draws)]
    return over_draws([measure_fit(site, r, general, fit_to(site, r, old)) for r in drawn])


def without_a_class(site: Site, old: Heads, draws: int) -> Any:
    """A shared class without labelled cells: its recall, and the mean of all, before and after."""
    found = []
    for seed in range(draws):
        for k in site.shared:
            rows = draw_each(site, 10, np.random.default_rng(seed))
            rows = rows[site.targets[rows] != k]
            fit, rest = fit_to(site, rows, old), np.isin(site.targets, site.shared)
            rest[rows] = False
            targets, features = site.targets[rest], site.measures.features[rest, 0]
            named, before = (heads(features).argmax(axis=1) for heads in (fit.heads, old))
            every = np.arange(len(NAMES))
            found.append(
                {
                    "recall": float((named[targets == k] == k).mean()),
                    "recall_before": float((before[targets == k] == k).mean()),
                    "balanced": balanced(fit.heads(features), targets, every),
                    "balanced_before": balanced(old(features), targets, every),
                }
            )
    return over_draws(found)


def by_survey(site: Site, general: General, old: Heads, draws: int) -> Any:
    """Forty cells chosen by the survey, of the shared classes, against forty drawn at random."""
    known = np.flatnonzero(np.isin(site.targets, site.shared))
    features = site.measures.features[known, 0]
    named = old(features).argmax(axis=1)
    found: dict[str, list[dict[str, float]]] = {"survey": [], "random": []}
    for seed in range(draws):
        chosen = {
            "survey": known[choose_cells(features, named, BUDGET, seed)],
            "random": np.random.default_rng(seed).permutation(known)[:BUDGET],
        }
        for way, rows in chosen.items():
            found[way].append(measure_fit(site, rows, general, fit_to(site, rows, old)))
    gains = [
        {key: ours[key] - theirs[key] for key in ("one_look", "eight_looks")}
        for ours, theirs in zip(found["survey"], found["random"], strict=True)
    ]
    return {way: over_draws(each) for way, each in found.items()} | {"gain": over_draws(gains)}


def new_class(site: Site, old: Heads, draws: int) -> Any:
    """Blasts beside ten cells of each shared class: sensitivity and specificity for blasts."""
    targets = np.where(site.labels == "blast", len(NAMES), site.targets)
    blasts = np.flatnonzero(targets == len(NAMES))
    grown = Heads(
        tuple(
            Head(np.vstack([h.weight, h.weight.mean(axis=0)]), np.append(h.bias, h.bias.mean()))
            for h in old.members
        )
    )
    result, known = {}, site.known.members((*NAMES, "blast"))
    for count in BLASTS if len(blasts) > max(BLASTS) else ():
        found = []
        for seed in range(draws):
            random = np.random.default_rng(seed)
            rows = np.concatenate([draw_each(site, 10, random), random.permutation(blasts)[:count]])
            fit = fit_cells(site.choose(rows, targets), grown, known)
            rest = np.isin(targets, [*site.shared, len(NAMES)])
            rest[rows] = False
            features, true = site.measures.features[rest, 0], targets[rest]
            logits, others = fit.heads(features), true < len(NAMES)
            named, every = logits.argmax(axis=1), np.arange(len(NAMES) + 1)
            found.append(
                {
                    "sensitivity": float((named[~others] == len(NAMES)).mean()),
                    "specificity": float((named[others] < len(NAMES)).mean()),
                    "balanced_of_old": balanced(logits[others], true[others], every),
                    "balanced_of_old_before": balanced(
                        old(features[others]), true[others], every[:-1]
                    ),
                }
            )
        result[str(count)] = over_draws(found)
    return result


def agreement(site: Site, old: Heads) -> Any:
    """The accuracy before adapting, and the share of cells that all eight looks name alike."""
    ours = site.targets >= 0
    named = np.stack([old(turned[ours]).argmax(axis=1) for turned in site.turned])
    alike = (named == named[0]).all(axis=0)
    right = named[0] == site.targets[ours]
    return {
        "accuracy": wilson(int(right.sum()), len(right)),
        "alike": wilson(int(alike.sum()), len(alike)),
        "error": float(alike.mean() - right.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("sites", nargs="+")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    cells = Cells(options.cells)
    sites = [read_site(cells, options.runs, name, options.cache) for name in options.sites]
    results: dict[str, Any] = {}
    for site in sites:
        general, old = general_of(site, [other for other in sites if other is not site])
        draws = options.draws
        results[site.name] = {
            "cells": {NAMES[k]: int((site.targets == k).sum()) for k in site.shared},
            "agreement": agreement(site, old),
            "five_per_class": ten_per_class(site, general, old, draws, 5),
            "ten_per_class": ten_per_class(site, general, old, draws, 10),
            "twenty_five_per_class": ten_per_class(site, general, old, draws, 25),
            "without_a_class": without_a_class(site, old, max(2, draws // 5)),
            "forty": by_survey(site, general, old, draws),
            "new_class": new_class(site, old, draws),
        }
        print(site.name, json.dumps(json.loads(to_json(results[site.name])), indent=1), flush=True)
    errors = [abs(each["agreement"]["error"]) for each in results.values()]
    found = {"laboratories": results, "mean_agreement_error": float(np.mean(errors))}
    write_atomic(options.out, to_json({**found, "provenance": provenance()}))


if __name__ == "__main__":
    main()
