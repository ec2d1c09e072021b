"""Results → STUDY.md, study.html and the figures: everything on them comes from the files."""

from __future__ import annotations

import base64
import shutil
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
    paper_hours,
    read_study,
    validation,
)
from hemascope.study.results import RESULT, STUDY
from hemascope.study.tables import tables
from hemascope.training.folder import RunFolder
from hemascope.training.loop import network_of

RESULTS = "study"
"""The folder beside STUDY.md that keeps the results it is written from, and the figures."""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page, by the name of its files."""

    name: str
    caption: str


PAGE_FIGURES = (
    PageFigure("architecture", "Figure 1: the architecture, drawn from the model itself"),
    PageFigure("models", "Figure 2: accuracy of the models, and the reference's confusion matrix"),
    PageFigure("curves", "Figure 3: training and validation, with the best epoch"),
    PageFigure("ablations", "Figure 4: the four ablations; dashed, the reference"),
)


def write_report(folder: Path, out: Path) -> Study:
    """Collects a study's results in OUT/study, and writes OUT/STUDY.md and OUT/study.html of them.

    Raises ValueError where the folder holds no study, or the reference is not finished.
    """
    read_study(folder)
    results = out / RESULTS
    if results.resolve() != folder.resolve():
        collect(folder, results)
    study = read_study(results)
    for name, figure in _figures(study).items():
        save(figure, results, name)
    write_atomic(out / "STUDY.md", render_markdown(study))
    write_atomic(out / "study.html", _page(study, results))
    return study


def collect(folder: Path, results: Path) -> None:
    """Copies what the tables need of a study, without weights, events and bundles."""
    names = [Path(STUDY)]
    for found in sorted(folder.glob(f"*/{RESULT}")):
        metrics = RunFolder(found.parent).metrics
        names += [found.relative_to(folder), metrics.relative_to(folder)]
    for name in names:
        with atomic_path(results / name) as temporary:
            shutil.copyfile(folder / name, temporary)


def render_markdown(study: Study) -> str:
    """The page as Markdown; its figures are files in `study/`."""
    return _render("study.md.j2", study) + "\n"


def _page(study: Study, results: Path) -> str:
    images = {
        page_figure.name: "data:image/svg+xml;base64,"
        + base64.b64encode((results / f"{page_figure.name}.svg").read_bytes()).decode()
        for page_figure in PAGE_FIGURES
    }
    return _render("study.html.j2", study, images)


def _render(template: str, study: Study, images: dict[str, str] | None = None) -> str:
    environment = Environment(
        loader=PackageLoader("hemascope.study"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    missing = [experiment.title for experiment in EXPERIMENTS.values() if not study.of(experiment)]
    return environment.get_template(template).render(
        tables=tables(study),
        page_figures=PAGE_FIGURES,
        images=images,
        folder=RESULTS,
        profile=study.profile,
        reference=study.of(REFERENCE)[0].result,
        runs=sum(len(runs) for runs in study.runs.values()),
        hours=hours(study),
        paper_hours=paper_hours(study),
        missing=missing,
        notice=RESEARCH_USE_ONLY,
    )


def _figures(study: Study) -> dict[str, Figure]:
    runs = study.of(REFERENCE)
    result = runs[0].result
    network, size = network_of(result.recipe, len(result.class_names)), result.recipe.image_size
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
        "architecture": draw_architecture(layers_of(network, size), REFERENCE.title, size),
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
