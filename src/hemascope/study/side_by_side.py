"""The paper's figures beside those of every profile: one table of accuracies, two of claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hemascope.study.experiments import (
    ABLATIONS,
    LETTER_FINAL,
    MODELS,
    REFERENCE,
    Experiment,
)
from hemascope.study.findings import (
    Metric,
    Study,
    accuracy_on_test,
    class_metrics,
    comparisons,
    confusion_on_test,
    first_epoch_at,
    validation,
)
from hemascope.study.tables import NOT_RUN, Table, paper_percent, percent, points

PAPER_PARAMETERS = {
    "simple_cnn": "26.08 M",
    "resnet18": "11.18 M",
    "efficientnet_lite": "0.55 M",
    "deep_efficientnet": "1.84 M",
}
PAPER_F1 = (0.988, 1.0)
"""The least and the greatest F1 score of a class that the paper prints."""
PAPER_95_EPOCH, PAPER_BEST_EPOCH = 19, 43
FINAL_TEST, VALIDATION = LETTER_FINAL.paper_test, REFERENCE.paper_validation


def compare_with_paper(studies: Sequence[Study]) -> tuple[Table, ...]:
    """The tables that show all profiles; those of one profile are in `tables`."""
    return (_accuracies(studies), _claims(studies), _other_claims(studies))


def _accuracies(studies: Sequence[Study]) -> Table:
    experiments = [("Models", e.title, e) for e in (*MODELS.others, REFERENCE, LETTER_FINAL)]
    experiments += [(group.title, e.title, e) for group in ABLATIONS for e in group.others]
    header = ["group", "setting", "paper, validation", "paper, test"]
    for study in studies:
        header += [f"{_how(study)}, validation", f"{_how(study)}, test"]
    rows = []
    for group, title, experiment in experiments:
        row = [group, title]
        row += [paper_percent(experiment.paper_validation), paper_percent(experiment.paper_test)]
        for study in studies:
            runs = study.of(experiment)
            if runs:
                metrics = validation(runs), accuracy_on_test(study, experiment)
                row += [percent(metric, short=True) for metric in metrics]
            else:
                row += [NOT_RUN, NOT_RUN]
        rows.append(tuple(row))
    result = studies[0].of(REFERENCE)[0].result
    validated = 0 if result.val is None else len(result.val.targets)
    return Table(
        "Every accuracy, side by side",
        tuple(header),
        tuple(rows),
        f"In percent, of {validated} validation images and {len(result.test.targets)} test images; "
        "the paper's are of 640 and 1,000.",
    )


def _claims(studies: Sequence[Study]) -> Table:
    """The paper's gains: its reference's validation accuracy less that of the other setting."""
    found = [comparisons(study) for study in studies]
    header = ["claim", "paper's gain, validation"]
    for study in studies:
        header += [f"{_how(study)}: gain on test", f"{_how(study)}: verdict"]
    rows = []
    for group in (MODELS, *ABLATIONS):
        for other in group.others:
            row = [
                f"{group.title}: {group.reference} better than {other.title}",
                _paper_gain(other),
            ]
            for comparison in (each.get(other.name) for each in found):
                if comparison is None:
                    row += [NOT_RUN, ""]
                else:
                    row += [points(comparison.difference), comparison.verdict]
            rows.append(tuple(row))
    return Table(
        "The paper's claims, and what each profile can tell of them",
        tuple(header),
        tuple(rows),
        "The paper's own gains are differences of two accuracies on 640 validation images, without "
        "an interval: at 99 % the sampling error of one of them is about 0.8 points either way, at "
        "96 % about 1.5.",
    )


def _how(study: Study) -> str:
    return "by the letter" if study.profile.to_the_letter else "like for like"


def _paper_gain(other: Experiment) -> str:
    if REFERENCE.paper_validation is None or other.paper_validation is None:
        return "–"
    return f"{100 * (REFERENCE.paper_validation - other.paper_validation):+.2f} points"


def _other_claims(studies: Sequence[Study]) -> Table:
    def row(what: str, paper: str, ours: Callable[[Study], str]) -> tuple[str, ...]:
        return (what, paper, *map(ours, studies))

    name, (low, high) = REFERENCE.title, PAPER_F1
    f1_range = f"{100 * low:.1f} – {100 * high:.1f} %"
    exchanged = f"{name}, immature granulocytes and monocytes taken for one another (test)"
    reached = f"{name}, 95 % validation accuracy first reached in epoch"
    rows = [
        row(
            f"parameters of {experiment.title}",
            PAPER_PARAMETERS[experiment.name],
            partial(_parameters, experiment),
        )
        for experiment in (*MODELS.others, REFERENCE)
    ]
    rows += [
        row(f"{name}, least and greatest F1 of a class (test)", f1_range, _f1_range),
        row(exchanged, "the main confusion", _ig_monocyte),
        row(reached, str(PAPER_95_EPOCH), _first_epochs),
        row(f"{name}, best epoch", str(PAPER_BEST_EPOCH), _best_epochs),
        row(f"test accuracy of the final {name}", paper_percent(FINAL_TEST), _final_test),
        row(f"validation accuracy of {name}", paper_percent(VALIDATION), _validation),
    ]
    header = ("what", "paper", *map(_how, studies))
    return Table("The paper's other claims", header, tuple(rows))


def _first_epochs(study: Study) -> str:
    return ", ".join(first_epoch_at(run.epochs, 0.95) for run in study.of(REFERENCE))


def _best_epochs(study: Study) -> str:
    return ", ".join(str(run.result.best_epoch) for run in study.of(REFERENCE))


def _final_test(study: Study) -> str:
    if not study.of(LETTER_FINAL):
        return NOT_RUN
    return _beside(accuracy_on_test(study, LETTER_FINAL), FINAL_TEST)


def _validation(study: Study) -> str:
    return _beside(validation(study.of(REFERENCE)), VALIDATION)


def _parameters(experiment: Experiment, study: Study) -> str:
    runs = study.of(experiment)
    return f"{runs[0].result.parameters:,}" if runs else NOT_RUN


def _f1_range(study: Study) -> str:
    result = study.of(REFERENCE)[0].result
    scores = {
        name: metrics.f1.value or 0.0
        for name, metrics in zip(
            result.class_names, class_metrics(result.test, len(result.class_names)), strict=True
        )
    }
    least, most = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
    return f"{100 * scores[least]:.1f} ({least}) – {100 * scores[most]:.1f} % ({most})"


def _ig_monocyte(study: Study) -> str:
    names = study.of(REFERENCE)[0].result.class_names
    if not {"ig", "monocyte"} <= set(names):
        return "–"
    confusion = confusion_on_test(study, REFERENCE)
    ig, monocyte = names.index("ig"), names.index("monocyte")
    between = int(confusion[ig, monocyte] + confusion[monocyte, ig])
    return f"{between} of {int(confusion.sum() - confusion.trace())} mistakes"


def _beside(metric: Metric | None, paper: float | None) -> str:
    """A figure with its interval, and on which side of it the paper's lies."""
    text = percent(metric)
    if metric is None or metric.low is None or metric.high is None or paper is None:
        return text
    side = "agrees" if metric.low <= paper <= metric.high else "higher here"
    return f"{text}: {'lower here' if paper > metric.high else side}"
