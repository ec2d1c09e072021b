"""`hemascope train-locator`: how the network comes to be that finds cells on fields."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from hemascope.bundle.locator_bundle import write_locator
from hemascope.cli.options import ResumeRun
from hemascope.cli.terminal import escape, out, progress_bar
from hemascope.training.locator_recipe import LocatorRecipe

if TYPE_CHECKING:
    from hemascope.training.locator import LocatorRecord

LocatorSettings: TypeAlias = Annotated[LocatorRecipe | None, Parameter(name="*")]


def train_locator(
    data: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: LocatorSettings = None,
    resume: ResumeRun = False,
    name: str | None = None,
) -> int:
    """Train the network that finds cells on smear fields. Needs 'hemascope[train]'.

    It learns from the public sets of fields with boxes, of which those of the test split are left
    out, and from drawn fields. The thresholds of its scores are then chosen on the training fields.

    Parameters
    ----------
    data
        The folder with the public sets: bccd, pbc, and fields with draaslan and chula in it.
    out_folder
        The run's folder: recipe, losses, checkpoint, and the locator in its folder bundle.
    recipe
        Single settings.
    name
        Name of the locator; by default the folder's.
    """
    from hemascope.smear.train_locator import train

    if not resume and out_folder.exists() and any(out_folder.iterdir()):
        raise ValueError(f"{out_folder}: is not empty; use --resume to continue the run there")
    chosen = recipe or LocatorRecipe()
    print_round = partial(_print_round, chosen.steps)
    with progress_bar("reading") as on_read, progress_bar("choosing thresholds") as on_field:
        bundle = train(
            chosen, data, out_folder, name or out_folder.name, on_read, print_round, on_field
        )
    folder = out_folder / "bundle"
    write_locator(bundle, folder)
    out.print(f"locator written to {escape(str(folder))}", soft_wrap=True)
    return 0


def _print_round(steps: int, record: LocatorRecord) -> None:
    out.print(
        f"step {record.step}/{steps}: centres {record.heat_loss:.3f}, boxes "
        f"{record.box_loss:.3f}, {record.seconds:.0f} s"
    )
