"""`hemascope evaluate`: how a model does on labelled images, also of another laboratory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card
from hemascope.cli.options import (
    BundlePath,
    Classes,
    Force,
    ManifestPath,
    MaxPixels,
    Name,
    Root,
    SkipOutliers,
    Split,
    Tta,
    UmPerPixel,
    fill_scales,
    limit_pixels,
    open_bundle,
    print_left_out,
    select_images,
    title_of,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing, share
from hemascope.data.attributes import read_attributes
from hemascope.data.external import SITES, Site, read_site
from hemascope.data.manifest import Manifest
from hemascope.inference.classifier import Classifier
from hemascope.metrics.class_subset import AT_LEAST
from hemascope.records import (
    RESEARCH_USE_ONLY,
    ChoiceMetrics,
    Estimate,
    Evaluation,
    MorphologyMetrics,
    Proportion,
    SiteMetrics,
)


@dataclass(frozen=True)
class SiteOptions:
    """What a user says of the images, such as those of another laboratory."""

    site: str | None = None
    """A public data set of another laboratory: jiangxi, bccd or munich. MANIFEST is its folder."""
    skip_outliers: SkipOutliers = False
    um_per_pixel: UmPerPixel = "auto"
    against: Path | None = None
    """Manifest or folder of labelled images, such as the training laboratory's, with which
    the site's images are compared: stain, background, sharpness, size."""
    against_split: str | None = None
    """Compare with the rows of this split only, such as pool."""

    def __post_init__(self) -> None:
        if self.site is not None and self.um_per_pixel != "auto":
            raise ValueError("--site knows its own scale; leave --um-per-pixel out")
        if self.against_split is not None and self.against is None:
            raise ValueError("--against-split is the split of --against; add that")

    @property
    def site_record(self) -> Site | None:
        """The record of the site, if it is a known one."""
        return None if self.site is None else SITES.get(self.site)

    def select(self, path: Path, root: Path | None, split: str | None, bundle: Bundle) -> Manifest:
        """The labelled cells in the site's folder, a manifest, or a folder with one per class.

        Cells of a site that are of none of the model's classes are left out, which is said.
        """
        classes = bundle.card.classes
        if self.site is not None:
            if root is not None or split is not None:
                raise ValueError("--site reads the site's own files; leave --root and --split out")
            manifest, others = read_site(self.site, path).separate_outliers(classes)
            print_left_out(others)
            return manifest
        images = select_images(path, root, split, classes, self.skip_outliers)
        manifest = fill_scales(images, self.um_per_pixel, bundle)
        if self.against is not None and all(row.um_per_pixel is None for row in manifest.rows):
            raise ValueError(
                "--against compares a site's images; add --site or --um-per-pixel, or give the "
                "manifest a column um_per_pixel"
            )
        return manifest

    def add_appearance(
        self, evaluation: Evaluation, manifest: Manifest, card: Card, progress: Any
    ) -> Evaluation:
        """The evaluation of a site with its images' statistics; any other as it is."""
        from hemascope.evaluation.appearance import (
            compare_appearance,
            match_labels,
            measure_appearance,
        )

        if evaluation.site is None:
            return evaluation
        ours = measure_appearance(manifest, card.input, progress)
        if self.against is None:
            return replace(
                evaluation, site=replace(evaluation.site, appearance=compare_appearance(ours))
            )
        others = select_images(self.against, None, self.against_split, card.classes)
        theirs = measure_appearance(match_labels(manifest, others), card.input, progress)
        site = replace(
            evaluation.site,
            appearance=compare_appearance(ours, theirs),
            reference=title_of(self.against, self.against_split),
        )
        return replace(evaluation, site=site)


@dataclass(frozen=True)
class MorphologyOptions:
    """What is known of the cells besides their class."""

    attributes: Path | None = None
    """CSV file of what is seen of each cell, like WBCAtt's: img_name and a column per attribute.
    The attributes that the bundle tells are measured on these cells."""
    second_annotator: Path | None = None
    """The same by a second annotator: how far the two agree is shown beside the model, as its
    ceiling."""

    def __post_init__(self) -> None:
        if self.second_annotator is not None and self.attributes is None:
            raise ValueError("--second-annotator is compared with --attributes; add that")

    def add_morphology(
        self, evaluation: Evaluation, classifier: Classifier, manifest: Manifest
    ) -> Evaluation:
        """The evaluation with figures of attributes and subtypes, where the bundle tells any."""
        from hemascope.evaluation.morphology import measure_morphology

        if classifier.card.morphology is None and self.attributes is None:
            return evaluation
        first, second = (
            None if path is None else read_attributes(path)
            for path in (self.attributes, self.second_annotator)
        )
        with progress_bar("measuring attributes and subtypes") as progress:
            found = measure_morphology(classifier, manifest, first, second, progress)
        return replace(evaluation, morphology=found)


def evaluate(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    split: Split = None,
    root: Root = None,
    name: Name = None,
    tta: Tta = False,
    classes: Classes = None,
    site_options: Annotated[SiteOptions | None, Parameter(name="*")] = None,
    morphology_options: Annotated[MorphologyOptions | None, Parameter(name="*")] = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Measure a model on labelled images. Needs 'hemascope[evaluate]'.

    Writes evaluation.json, figures and report.html; every figure has its 95 % interval. For
    another laboratory's images, --site, --um-per-pixel or the manifest's own scale brings them to
    the model's scale, and adds the figures among the classes that the laboratory has, and how its
    images differ.

    Parameters
    ----------
    out_folder
        Where the results go.
    """
    limit_pixels(max_pixels)
    from hemascope.reports.write import write_evaluation

    refuse_existing(force, out_folder / "evaluation.json")
    classifier = Classifier(open_bundle(bundle, classes), tta=tta)
    site, morphology = site_options or SiteOptions(), morphology_options or MorphologyOptions()
    images = site.select(manifest, root, split, classifier.bundle)
    title = name or site.site or title_of(manifest, split)
    evaluation = _measure(classifier, images, title, site, morphology)
    write_evaluation(evaluation, classifier, images, out_folder)
    _print_evaluation(evaluation)
    out.print(f"written to {escape(str(out_folder))}. {RESEARCH_USE_ONLY}", soft_wrap=True)
    return 0


def _measure(
    classifier: Classifier,
    images: Manifest,
    title: str,
    site: SiteOptions,
    morphology: MorphologyOptions,
) -> Evaluation:
    """All figures that the images and the options allow."""
    from hemascope.evaluation.evaluate import evaluate as measure

    with progress_bar("evaluating") as progress:
        evaluation = measure(classifier, images, title, progress, site.site_record)
    with progress_bar("measuring images") as progress:
        evaluation = site.add_appearance(evaluation, images, classifier.card, progress)
    return morphology.add_morphology(evaluation, classifier, images)


def _print_evaluation(evaluation: Evaluation) -> None:
    _print_figures(evaluation)
    if evaluation.site is not None:
        _print_site(evaluation.site)
    if evaluation.morphology is not None:
        _print_morphology(evaluation.morphology)


def _print_figures(evaluation: Evaluation) -> None:
    table = Table(
        "figure", "value", "95 % interval", title=f"{escape(evaluation.name)}, n = {evaluation.n}"
    )
    figures: dict[str, Proportion | Estimate] = {
        "accuracy": evaluation.accuracy,
        "balanced accuracy": evaluation.balanced_accuracy,
        "macro F1": evaluation.macro_f1,
        "macro AUROC": evaluation.macro_auroc,
        "expected calibration error": evaluation.expected_calibration_error,
    }
    if len(evaluation.present) < len(evaluation.class_names):
        _print_present(evaluation)
        del figures["accuracy"], figures["balanced accuracy"]
        figures["macro F1, classes without images included"] = figures.pop("macro F1")
    for name, figure in figures.items():
        interval = f"{share(figure.low)} – {share(figure.high)}"
        table.add_row(name, share(figure.value), interval)
    out.print(table)
    classes = Table("class", "n", "precision", "recall", "F1")
    for scores in evaluation.per_class:
        values = (scores.precision.value, scores.recall.value, scores.f1.value)
        classes.add_row(escape(scores.label), str(scores.recall.n), *map(share, values))
    out.print(classes)
    if evaluation.unreadable:
        out.print(f"{len(evaluation.unreadable)} images could not be read and are left out")


def _print_present(evaluation: Evaluation) -> None:
    """The classes that are there, and the figures among all classes and among these."""
    present, names = evaluation.present, evaluation.class_names
    out.print(
        f"{len(present)} of the model's {len(names)} classes are there: "
        f"{escape(', '.join(present))}",
        soft_wrap=True,
    )
    table = Table("named among", "accuracy", "balanced accuracy")
    rows: dict[str, Evaluation | ChoiceMetrics] = {f"all {len(names)} classes": evaluation}
    if evaluation.among_present is not None:
        rows[f"these {len(present)} only"] = evaluation.among_present
    for title, scores in rows.items():
        table.add_row(title, _interval(scores.accuracy), _interval(scores.balanced_accuracy))
    out.print(table)


def _interval(figure: Proportion | Estimate) -> str:
    return f"{share(figure.value)} ({share(figure.low)} – {share(figure.high)})"


def _print_site(site: SiteMetrics) -> None:
    """Accuracy, balanced accuracy and calibration on the cells of the shared classes."""
    names = ", ".join(site.shared) or "none"
    out.print(f"{site.n} cells of the classes with {AT_LEAST} or more: {escape(names)}")
    table = Table("chosen among", "accuracy", "balanced accuracy", "calibration error")
    rows = {"all classes of the model": site.among_all, "these classes only": site.among_shared}
    for title, scores in rows.items():
        table.add_row(
            title,
            _interval(scores.accuracy),
            _interval(scores.balanced_accuracy),
            _interval(scores.expected_calibration_error),
        )
    out.print(table)


def _print_morphology(found: MorphologyMetrics) -> None:
    """Attributes beside the second annotator's, and subtypes."""
    if found.mean is not None:
        table = Table("attribute", "accuracy", "macro F1", "kappa", "second annotator")
        for row in found.attributes:
            ceiling = "–" if row.annotator is None else share(row.annotator.accuracy.value)
            figures = (row.model.accuracy.value, row.model.macro_f1.value)
            kappa = "–" if row.model.kappa.value is None else f"{row.model.kappa.value:.2f}"
            table.add_row(row.name, *map(share, figures), kappa, ceiling)
        table.add_row("mean", _interval(found.mean.accuracy), _interval(found.mean.macro_f1))
        out.print(table)
    subtypes = Table("subtype", "n", "recall")
    for subtype in found.per_subtype:
        if subtype.recall.n:
            name, n = escape(subtype.subtype), str(subtype.recall.n)
            subtypes.add_row(name, n, _interval(subtype.recall))
    if subtypes.rows:
        out.print(subtypes)
