"""The paper's tables with ours beside them: results → rows of text, with intervals and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hemascope.bundle.bundle import read_bundle
from hemascope.records import Estimate
from hemascope.study.compare import Comparison
from hemascope.study.experiments import (
    ABLATIONS,
    FINAL,
    LETTER_FINAL,
    MODELS,
    OURS,
    REFERENCE,
    Experiment,
    Group,
)
from hemascope.study.findings import (
    Metric,
    Run,
    Study,
    accuracy_on_test,
    class_metrics,
    comparisons,
    first_epoch_at,
    macro_f1_on_test,
    validation,
)
from hemascope.study.results import RunResult

NOT_RUN = "not run"
PAPER_HARDWARE = "RTX 4080 Super"
COMPARED = ("better by", "seeds of both", "p", "p, corrected", "claim")


@dataclass(frozen=True)
class Table:
    """A table of text. `note` says how to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(study: Study) -> tuple[Table, ...]:
    """Every table of one profile."""
    found = comparisons(study)
    return (
        _models(study),
        _comparisons(found),
        _per_class(study, REFERENCE),
        _ablations(study, found),
        _final(study),
        _efficiency(study),
    )


def _models(study: Study) -> Table:
    rows = []
    for experiment in (*MODELS.others, REFERENCE, OURS):
        runs = study.of(experiment)
        shown = [experiment.title if experiment is not OURS else "ours (the paper's network)"]
        if not runs:
            rows.append((*shown, *[NOT_RUN] * 6, "", ""))
            continue
        result = runs[0].result
        shown += [
            f"{result.parameters:,}",
            f"{result.multiply_accumulates / 1e6:,.0f} M",
            str(len(runs)),
            paper_percent(experiment.paper_validation),
            percent(validation(runs)),
            paper_percent(experiment.paper_test),
            percent(accuracy_on_test(study, experiment)),
            percent(macro_f1_on_test(runs)),
        ]
        rows.append(tuple(shown))
    return Table(
        "Table 1, left: models",
        (
            "model",
            "parameters",
            "multiply-accumulates",
            "seeds",
            "paper, validation",
            "validation",
            "paper, test",
            "test",
            "macro F1, test",
        ),
        tuple(rows),
    )


def _comparisons(found: dict[str, Comparison]) -> Table:
    names = [experiment.name for experiment in (*MODELS.others, OURS)]
    rows = tuple(
        (comparison.title.removeprefix(f"{MODELS.title}: "), *_compared_cells(comparison))
        for comparison in (found[name] for name in names if name in found)
    )
    return Table("Models compared", ("claim", *COMPARED), rows)


def _per_class(study: Study, experiment: Experiment) -> Table:
    result = study.of(experiment)[0].result
    metrics = class_metrics(result.test, len(result.class_names))
    rows = tuple(
        (name, percent(found.precision), percent(found.recall), percent(found.f1))
        for name, found in zip(result.class_names, metrics, strict=True)
    )
    return Table(
        f"Table 1, right: {experiment.title} by class",
        ("class", "precision", "recall", "F1"),
        rows,
        f"Seed {result.recipe.seed}, test images.",
    )


def _ablations(study: Study, found: dict[str, Comparison]) -> Table:
    rows = []
    for group in ABLATIONS:
        rows.append(_ablation_row(study, group, group.reference, REFERENCE, None))
        rows += [
            _ablation_row(study, group, other.title, other, found.get(other.name))
            for other in group.others
        ]
    return Table(
        "Table 2: ablations",
        (
            "group",
            "setting",
            "seeds",
            "paper, validation",
            "validation",
            "test",
            *COMPARED,
        ),
        tuple(rows),
        "The first row of each group is the reference, the same runs in all four groups. The "
        "claim: it is better than the row's setting.",
    )


def _ablation_row(
    study: Study, group: Group, title: str, experiment: Experiment, found: Comparison | None
) -> tuple[str, ...]:
    runs = study.of(experiment)
    if not runs:
        paper = paper_percent(experiment.paper_validation)
        return (group.title, title, NOT_RUN, paper, *[NOT_RUN] * 2, *[""] * len(COMPARED))
    cells = _compared_cells(found) if found is not None else [""] * len(COMPARED)
    accuracies = (
        paper_percent(experiment.paper_validation),
        percent(validation(runs)),
        percent(accuracy_on_test(study, experiment)),
    )
    return (group.title, title, str(len(runs)), *accuracies, *cells)


def _compared_cells(found: Comparison) -> list[str]:
    """The columns of JUDGED."""
    p_values = p_value(found.p_value), p_value(found.adjusted)
    return [points(found.difference), str(found.seeds), *p_values, found.verdict]


def _final(study: Study) -> Table:
    rows = []
    for experiment in (LETTER_FINAL, FINAL):
        for run in study.of(experiment):
            accuracy = accuracy_on_test(study, experiment)
            images = f"{run.result.train_images:,} images"
            rows.append((f"{experiment.title}, in this profile", images, percent(accuracy), "test"))
    card = read_bundle(None).card
    shipped = f"{card.name}, which comes with the package"
    rows += [
        (shipped, card.training_data, percent(metric.result), metric.measured_on)
        for metric in card.metrics
    ]
    rows.append(
        (
            "the paper's DeepEfficientNet",
            "2,560 images",
            paper_percent(REFERENCE.paper_test),
            "1,000 images",
        )
    )
    return Table(
        "The final model: trained on all training images, scored once",
        ("model", "trained on", "test accuracy", "measured on"),
        tuple(rows),
    )


PAPER_EFFICIENCY = (
    "DeepEfficientNet in the paper, 224 px",
    *("1.84 M", "", "9.6 s", "4.2 GB", "", "8.3 ms", "", "", PAPER_HARDWARE),
)


def _efficiency(study: Study) -> Table:
    header = (
        *("model", "parameters", "multiply-accumulates", "an epoch", "memory"),
        *("an image, processors", "an image, GPU", "95 % first reached in epoch", "best epoch"),
        "hardware",
    )
    rows = [
        _efficiency_row(experiment.title, study.of(experiment))
        for experiment in (*MODELS.others, REFERENCE, OURS)
        if study.of(experiment)
    ]
    return Table(
        "Efficiency",
        header,
        (*rows, PAPER_EFFICIENCY),
        f"At {study.profile.base.image_size} px; medians over epochs and seeds; memory is the most "
        "that the process had in training. An image: one at a time and preprocessed, by "
        "onnxruntime on processors, by torch on the GPU. Runs that shared a machine slowed one "
        "another down.",
    )


def _efficiency_row(title: str, runs: Sequence[Run]) -> tuple[str, ...]:
    result = runs[0].result
    epochs = [epoch for run in runs for epoch in run.epochs]
    return (
        title,
        f"{result.parameters / 1e6:.2f} M",
        f"{result.multiply_accumulates / 1e6:,.0f} M",
        f"{statistics.median(epoch.seconds for epoch in epochs):.1f} s",
        f"{max(epoch.memory_mb for epoch in epochs) / 1000:.2f} GB",
        f"{statistics.median(run.result.milliseconds for run in runs):.1f} ms",
        _gpu_milliseconds(runs),
        _distinct(first_epoch_at(run.epochs, 0.95) for run in runs),
        _distinct(str(run.result.best_epoch) for run in runs),
        _hardware(result),
    )


def percent(metric: Metric | None, *, short: bool = False) -> str:
    """99.1 % (98.3 – 99.5, n = 1000), or 99.1 (98.3 – 99.5) where it is to be short, or a dash."""
    if metric is None or metric.value is None:
        return "–"
    unit, n = ("", "") if short else (" %", f", n = {metric.n}")
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.1f}{unit}"
    return f"{100 * metric.value:.1f}{unit} ({100 * metric.low:.1f} – {100 * metric.high:.1f}{n})"


def points(difference: Estimate) -> str:
    """+1.2 points (0.3 – 2.0)."""
    if difference.value is None or difference.low is None or difference.high is None:
        return "–"
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points ({low:+.1f} – {high:+.1f})"


def p_value(p: float) -> str:
    """Such as "0.03", or "< 0.0001"."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def paper_percent(accuracy: float | None) -> str:
    """Such as "99.38 %", or a dash where the paper prints nothing."""
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"


def _distinct(values: Iterable[str]) -> str:
    """The seeds' values, once where they agree."""
    return ", ".join(dict.fromkeys(values))


def _gpu_milliseconds(runs: Sequence[Run]) -> str:
    times = [run.result.gpu_milliseconds for run in runs if run.result.gpu_milliseconds is not None]
    return f"{statistics.median(times):.1f} ms" if times else "–"


def _hardware(result: RunResult) -> str:
    device, processors = result.provenance["device"], result.provenance["processors"]
    return f"{processors} processors" if device == "cpu" else device
