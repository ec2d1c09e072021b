"""Results → STUDY.md, study.html and the figures: everything on them comes from the files."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from hemascope.files import atomic_path, write_atomic
from hemascope.models.summary import layers_of
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.study.experiments import ABLATIONS, EXPERIMENTS, MODELS, REFERENCE
from hemascope.study.figures import (
    AblationBar,
    AblationGroup,
    ModelBar,
    draw_ablations,
    draw_architecture,
    draw_curves,
    draw_models,
    save,
)
from hemascope.study.findings import (
    Study,
    accuracy_on_test,
    confusion_on_test,
    hours,
    read_studies,
    validation,
)
from hemascope.study.results import RESULT, STUDY, RunResult
from hemascope.study.side_by_side import compare_with_paper
from hemascope.study.tables import Table, tables
from hemascope.training.folder import RunFolder
from hemascope.training.loop import network_of

RESULTS = "study"
"""The folder beside STUDY.md that keeps the results it is written from, and the figures."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page, by the name of its files."""

    name: str
    caption: str


ARCHITECTURE = PageFigure("architecture", "The architecture, drawn from the model itself")
PROFILE_FIGURES = (
    PageFigure("models", "Accuracy of the models, and the reference's confusion matrix"),
    PageFigure("curves", "Training and validation, with the best epoch"),
    PageFigure("ablations", "The four ablations; dashed, the reference"),
)


@dataclass(frozen=True)
class Section:
    """One profile's part of the page. `missing` are the experiments that have not been run."""

    study: Study
    reference: RunResult
    tables: tuple[Table, ...]
    runs: int
    hours: float
    missing: tuple[str, ...]


def write_report(folder: Path, out: Path) -> tuple[Study, ...]:
    """Collects studies' results in OUT/study, and writes OUT/STUDY.md and OUT/study.html of all.

    `folder` holds one study, or several in folders of their own; what was collected of other
    profiles before stays on the page. Raises ValueError where the folder holds no study, or a
    reference is not finished.
    """
    results = out / RESULTS
    for study in read_studies(folder):
        collected = results / study.profile.name
        if not study.path.resolve().is_relative_to(results.resolve()):
            collect(study.path, collected)
    studies = read_studies(results)
    for study in studies:
        for name, figure in _figures(study).items():
            save(figure, results / study.profile.name, name)
    save(_architecture(studies[0]), results, ARCHITECTURE.name)
    write_atomic(out / "STUDY.md", render_markdown(studies))
    write_atomic(out / "study.html", _page(studies, results))
    return studies


def collect(folder: Path, results: Path) -> None:
    """Copies what the tables need of a study, without weights, events and bundles."""
    names = [Path(STUDY)]
    for found in sorted(folder.glob(f"*/{RESULT}")):
        metrics = RunFolder(found.parent).metrics
        names += [found.relative_to(folder), metrics.relative_to(folder)]
    for name in names:
        with atomic_path(results / name) as temporary:
            shutil.copyfile(folder / name, temporary)


def render_markdown(studies: Sequence[Study]) -> str:
    """The page as Markdown; its figures are files in `study/`."""
    return _render("study.md.j2", studies) + "\n"


def _page(studies: Sequence[Study], results: Path) -> str:
    names = [ARCHITECTURE.name]
    names += [f"{s.profile.name}/{figure.name}" for s in studies for figure in PROFILE_FIGURES]
    images = {
        name: "data:image/svg+xml;base64,"
        + base64.b64encode((results / f"{name}.svg").read_bytes()).decode()
        for name in names
    }
    return _render("study.html.j2", studies, images)


def _render(template: str, studies: Sequence[Study], images: dict[str, str] | None = None) -> str:
    environment = Environment(
        loader=PackageLoader("hemascope.study"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        sections=[_section(study) for study in studies],
        together=compare_with_paper(studies),
        architecture=ARCHITECTURE,
        profile_figures=PROFILE_FIGURES,
        images=images,
        folder=RESULTS,
        notice=RESEARCH_USE_ONLY,
    )


def _section(study: Study) -> Section:
    return Section(
        study=study,
        reference=study.of(REFERENCE)[0].result,
        tables=tables(study),
        runs=sum(len(runs) for runs in study.runs.values()),
        hours=hours(study),
        missing=tuple(e.title for e in EXPERIMENTS.values() if not study.of(e)),
    )


def _architecture(study: Study) -> Figure:
    result = study.of(REFERENCE)[0].result
    network, size = network_of(result.recipe, len(result.class_names)), result.recipe.image_size
    return draw_architecture(layers_of(network, size), REFERENCE.title, size)


def _figures(study: Study) -> dict[str, Figure]:
    runs = study.of(REFERENCE)
    result = runs[0].result
    bars = [
        ModelBar(
            experiment.title,
            validation(study.of(experiment)),
            accuracy_on_test(study, experiment),
            experiment.paper_validation,
            experiment.paper_test,
        )
        for experiment in (*MODELS.others, REFERENCE)
        if study.of(experiment)
    ]
    return {
        "models": draw_models(
            bars,
            confusion_on_test(study, REFERENCE).tolist(),
            result.class_names,
            f"{REFERENCE.title}, seed {result.recipe.seed}, test",
        ),
        "curves": draw_curves(
            [(f"{REFERENCE.title}, seed {run.result.recipe.seed}", run.epochs) for run in runs]
        ),
        "ablations": draw_ablations(_ablation_groups(study)),
    }


def _ablation_groups(study: Study) -> list[AblationGroup]:
    groups = []
    for group in ABLATIONS:
        reference = AblationBar(
            group.reference, accuracy_on_test(study, REFERENCE), is_reference=True
        )
        others = (
            AblationBar(other.title, accuracy_on_test(study, other), is_reference=False)
            for other in group.others
            if study.of(other)
        )
        groups.append(AblationGroup(group.title, (reference, *others)))
    return groups
