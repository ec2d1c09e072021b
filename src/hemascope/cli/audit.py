"""`hemascope data audit`: images whose label is probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.cli.options import (
    Cache,
    Force,
    MaxPixels,
    Name,
    RecipeFile,
    RecipeSettings,
    Root,
    Split,
    choose_recipe,
    limit_pixels,
    select_images,
    title_of,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing
from hemascope.data.manifest import Manifest
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY, Audit
from hemascope.training.recipe import Recipe, StartFrom


@dataclass(frozen=True)
class Predictors:
    """The networks that predict images which they never saw: one that is given, or trained ones."""

    bundle: Path | None = None
    """Folder of a model that has seen none of these images, instead of training any."""
    folds: int = 3
    """Networks to train, each on all but one part of the images."""
    recipe_file: RecipeFile = None
    start_from: StartFrom | None = None
    """A run that has seen none of these images, whose weights each network begins with; or
    `imagenet`."""
    cache: Cache = None

    def get(
        self, recipe: Recipe | None, manifest: Manifest, folder: Path
    ) -> list[tuple[Classifier, Manifest]]:
        """Each network with the images that it never saw."""
        if self.bundle is not None:
            if (recipe or self.recipe_file or self.start_from) is not None:
                raise ValueError("--bundle trains nothing; leave the settings of training out")
            _check_unseen(manifest)
            return [(Classifier(self.bundle), manifest)]
        from hemascope.evaluation.audit import train_folds

        if self.folds < 2:
            raise ValueError(f"--folds must be at least 2, not {self.folds}")
        with progress_bar("reading") as on_read, progress_bar("training") as on_step:
            return train_folds(
                choose_recipe(self.recipe_file, recipe),
                manifest,
                folder,
                self.folds,
                start_from=self.start_from,
                cache=self.cache,
                on_read=on_read,
                on_step=on_step,
            )


def data_audit(
    images: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: RecipeSettings = None,
    predictors: Annotated[Predictors | None, Parameter(name="*")] = None,
    split: Split = None,
    root: Root = None,
    name: Name = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Find images whose label is probably wrong. Needs 'hemascope[audit]'.

    Every image is predicted by a network that never saw it: networks are trained on the other
    images in turn, or --bundle gives one that was trained on none of them. Writes a ranked list
    (audit.csv), a page (audit.html) and audit.json. If it is stopped, the same command continues.

    Parameters
    ----------
    images
        Folder with one folder per class, or manifest CSV.
    out_folder
        Where the list, the page and the runs go.
    recipe
        Single settings; the defaults are the study's.
    """
    limit_pixels(max_pixels)
    from hemascope.evaluation.audit import audit
    from hemascope.reports.write import write_audit

    refuse_existing(force, out_folder / "audit.csv")
    manifest = select_images(images, root, split)
    audited = (predictors or Predictors()).get(recipe, manifest, out_folder)
    with progress_bar("auditing") as progress:
        findings = audit(audited, name or title_of(images, split), progress)
    write_audit(findings, audited, out_folder)
    _print_audit(findings, out_folder)
    return 0


def _check_unseen(manifest: Manifest) -> None:
    """Raises ValueError for an image that a bundle may have been trained on."""
    trained_on = next((row.path for row in manifest.rows if row.split == "train"), None)
    if trained_on is not None:
        raise ValueError(
            f"{trained_on} is of split train; leave --bundle out, or choose by --split"
        )


def _print_audit(findings: Audit, folder: Path) -> None:
    for pair, count in findings.pairs.items():
        out.print(f"{escape(pair)}: {count}", highlight=False)
    out.print(
        f"{len(findings.issues)} of {findings.n} labels to look at; written to "
        f"{escape(str(folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
