"""`hemascope pretrain`: a network that has seen many cells before it is told what one is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from hemascope.batch.inputs import find_images
from hemascope.batch.unlabelled import find_unlabelled
from hemascope.cli.options import Cache, ImageList, MaxPixels, limit_pixels
from hemascope.cli.terminal import escape, out, print_warning, progress_bar
from hemascope.preprocess import View
from hemascope.smear.cells_of_fields import cut_cells
from hemascope.smear.locate import Locator
from hemascope.training.pretrain_recipe import PretrainRecipe
from hemascope.training.recipe import StartFrom

if TYPE_CHECKING:
    from hemascope.training.folder import EpochRecord

PretrainSettings: TypeAlias = Annotated[PretrainRecipe | None, Parameter(name="*")]
SHOWN = 3  # of the files that could not be read


def pretrain(
    images: Annotated[ImageList | None, Parameter(negative="")] = None,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: PretrainSettings = None,
    fields: Annotated[list[str] | None, Parameter(name="--fields", negative="")] = None,
    start_from: StartFrom | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    cache: Cache = None,
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
    out_folder
        The run's folder: recipe, curves, a checkpoint and the weights.
    recipe
        Single settings.
    fields
        Smear fields, named like the images: their white cells and platelets are located, and a
        square of --microns around each of them is an image. Fields whose red cells do not tell the
        scale are passed over.
    start_from
        Another run, of the same architecture, whose best weights this run begins with; or
        `imagenet`, for efficientnet_lite0 and efficientnet_mini; needs 'hemascope[imagenet]'.
    resume
        Continue the run in the folder.
    force
        Replace the run in the folder.
    """
    limit_pixels(max_pixels)
    from hemascope.training.allocator import keep_memory
    from hemascope.training.pretrain import pretrain as run_pretraining

    keep_memory()
    chosen = recipe or PretrainRecipe()
    if resume and force:
        raise ValueError("--resume goes on with a run and --force replaces it; give one of them")
    if fields and chosen.microns is None:
        raise ValueError(
            "--fields needs --microns, which says how wide a square is cut around each cell; 20 "
            "holds a large white cell"
        )
    views = _find_views(images or [], fields or [])
    with progress_bar("reading") as on_read, progress_bar("training") as on_step:
        run, data = run_pretraining(
            chosen,
            views,
            out_folder,
            resume=resume,
            force=force,
            start_from=start_from,
            cache=cache,
            on_read=on_read,
            on_step=on_step,
            on_epoch=partial(_print_epoch, chosen.epochs),
        )
    if data.damaged:
        rest = "; …" if len(data.damaged) > SHOWN else ""
        shown = "; ".join(data.damaged[:SHOWN])
        print_warning(f"{len(data.damaged)} images could not be read: {shown}{rest}")
    out.print(
        escape(
            f"learnt from {len(data.frames)} images; weights written to {run.best}; go on with "
            f"hemascope train --start-from {run.path} --model {chosen.model}"
        ),
        soft_wrap=True,
        highlight=False,
    )
    return 0


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
