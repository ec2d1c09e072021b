"""`hemascope pretrain`: a network that has seen many cells before it is told what one is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from hemascope.batch.inputs import find_images
from hemascope.batch.unlabelled import find_unlabelled
from hemascope.cli.options import Cache, ImageList, MaxPixels, ResumeRun, StartWeights, limit_pixels
from hemascope.cli.terminal import escape, out, print_warning, progress_bar
from hemascope.preprocess import View
from hemascope.smear.cells_of_fields import cut_cells
from hemascope.smear.locate import Locator
from hemascope.training.pretrain_recipe import PretrainRecipe

if TYPE_CHECKING:
    from hemascope.training.folder import EpochRecord

PretrainSettings: TypeAlias = Annotated[PretrainRecipe | None, Parameter(name="*")]
SHOWN = 3  # of the files that could not be read


@dataclass(frozen=True)
class PretrainRun:
    """Where a run is, what it begins with, and whether it goes on."""

    out: Path
    """The run's folder: recipe, curves, a checkpoint and the weights."""
    start_from: StartWeights = None
    resume: ResumeRun = False
    force: Annotated[bool, Parameter(negative="")] = False
    """Replace the run in the folder."""
    cache: Cache = None

    def __post_init__(self) -> None:
        if self.resume and self.force:
            raise ValueError(
                "--resume goes on with a run and --force replaces it; give one of them"
            )


def pretrain(
    images: Annotated[ImageList | None, Parameter(negative="")] = None,
    *,
    run: Annotated[PretrainRun, Parameter(name="*")],
    recipe: PretrainSettings = None,
    fields: Annotated[list[str] | None, Parameter(name="--fields", negative="")] = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Train a network on images without labels, as a start for `train`. Needs 'hemascope[train]'.

    The network learns to tell which two views, each changed at random, show the same image. Its
    weights are a start: `train --start-from RUN`. Files that cannot be read are passed over, and
    so are rows of split `test` in a manifest. With --resume, a run that was stopped or killed
    continues from its last full epoch.

    Parameters
    ----------
    images
        Files, folders (with all below them), patterns, or manifests (.csv); no label is used.
    recipe
        Single settings.
    fields
        Smear fields, named like the images: their white cells and platelets are located, and a
        square of --microns around each of them is an image. Fields whose red cells do not tell the
        scale are passed over.
    """
    limit_pixels(max_pixels)
    chosen = recipe or PretrainRecipe()
    if fields and chosen.microns is None:
        raise ValueError(
            "--fields needs --microns, which says how wide a square is cut around each cell; 20 "
            "holds a large white cell"
        )
    _pretrain(chosen, _find_views(images or [], fields or []), run)
    return 0


def _pretrain(recipe: PretrainRecipe, views: list[View], run: PretrainRun) -> None:
    """Trains, and says how it goes on and what came of it."""
    from hemascope.training.allocator import keep_memory
    from hemascope.training.pretrain import pretrain as run_pretraining

    keep_memory()
    with progress_bar("reading") as on_read, progress_bar("training") as on_step:
        made, data = run_pretraining(
            recipe,
            views,
            run.out,
            resume=run.resume,
            force=run.force,
            start_from=run.start_from,
            cache=run.cache,
            on_read=on_read,
            on_step=on_step,
            on_epoch=partial(_print_epoch, recipe.epochs),
        )
    if data.damaged:
        rest = "; …" if len(data.damaged) > SHOWN else ""
        shown = "; ".join(data.damaged[:SHOWN])
        print_warning(f"{len(data.damaged)} images could not be read: {shown}{rest}")
    out.print(
        escape(
            f"learnt from {len(data.frames)} images; weights written to {made.best}; go on with "
            f"hemascope train --start-from {made.path} --model {recipe.model}"
        ),
        soft_wrap=True,
        highlight=False,
    )


def _find_views(images: list[str], fields: list[str]) -> list[View]:
    """The images, and the cells cut from fields; what was left out is printed."""
    if not images and not fields:
        raise ValueError("no images were given; name a folder, files or a manifest, or --fields")
    views: list[View] = []
    if images:
        found = find_unlabelled(images)
        views += found.views
        if found.of_test:
            out.print(f"{found.of_test} rows of split test are left out")
        if found.passed_over:
            out.print(escape(f"passed over: {found.passed_over}"), soft_wrap=True)
    if fields:
        paths = find_images(fields)
        with progress_bar("locating cells") as progress:
            cut = cut_cells(Locator.from_bundle(), paths, progress)
        views += cut.views
        out.print(
            f"{len(cut.views)} cells on {len(paths) - cut.without_scale - cut.unreadable} fields; "
            f"passed over: {cut.without_scale} fields whose scale is not told, {cut.unreadable} "
            "that cannot be read"
        )
    return views


def _print_epoch(epochs: int, record: EpochRecord) -> None:
    out.print(
        f"epoch {record.epoch}/{epochs}: loss {record.train_loss:.4f}, own view found "
        f"{record.train_accuracy:.4f}, {record.images_per_second:.0f} images/s"
    )
