"""`hemascope study`: the paper's experiments, run, followed and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from hemascope.cli.options import Cache, ManifestPath, MaxPixels, Root, limit_pixels, open_images
from hemascope.cli.terminal import escape, out, print_error, progress_bar
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.study.experiments import PROFILES, Planned, plan

if TYPE_CHECKING:
    from hemascope.study.run import Failure, Runner
    from hemascope.study.status import RunStatus

app = App(name="study", help="Run the paper's experiments, and see whether its claims hold.")


ProfileName = Literal["paper", "cpu"]


@dataclass(frozen=True)
class Selection:
    """Which of a profile's runs are meant."""

    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None
    """Names of the experiments to run; by default all."""
    seeds: str = ""
    """Seeds of every experiment, such as 0,1,2; by default 0, and 0,1,2 for the models and for
    squeeze-and-excitation."""

    def plan(self, profile: str) -> tuple[Planned, ...]:
        """The runs. Raises ValueError for seeds that are no numbers."""
        return plan(PROFILES[profile], self.only or (), _seeds(self.seeds))


@dataclass(frozen=True)
class RunnerOptions:
    """What performs the runs, here or on a cluster."""

    at_once: int = 1
    """How many runs work at the same time, each in its own process; several small ones fill a
    GPU."""
    stop_after: float | None = None
    """Seconds after which all runs stop; give the same command again to finish them."""
    ray: Annotated[bool, Parameter(negative="")] = False
    """Run on a Ray cluster, by RAY_ADDRESS or else one started here; the folders must be on a
    disk that all its machines share. Needs 'hemascope[study,cluster]'."""

    def __post_init__(self) -> None:
        if self.ray and (self.at_once != 1 or self.stop_after is not None):
            raise ValueError(
                "--at-once and --stop-after are for one machine; leave them out with --ray"
            )

    def runner(self) -> Runner:
        """What performs them."""
        from hemascope.study.run import run_here

        if not self.ray:
            return partial(run_here, at_once=self.at_once, stop_after=self.stop_after)
        from hemascope.study.cluster import run_on_ray

        return run_on_ray


@app.command(name="run")
def study_run(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    profile: ProfileName = "cpu",
    selection: Annotated[Selection | None, Parameter(name="*")] = None,
    runner: Annotated[RunnerOptions | None, Parameter(name="*")] = None,
    root: Root = None,
    cache: Cache = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Train and score every experiment of the paper. Needs 'hemascope[study]'.

    Each run is a recipe in a folder named by its hash. Finished runs are never run again. Runs that
    were stopped continue from their last full epoch: give the same command again.

    Parameters
    ----------
    out_folder
        Folder of the study.
    profile
        paper: to the letter of the paper's protocol, for a GPU. cpu: every model and ablation
        alike, smaller and shorter, for two processors.
    """
    limit_pixels(max_pixels)
    runs = (selection or Selection()).plan(profile)
    from hemascope.study.run import run_study

    with progress_bar("epochs") as on_epochs:
        failures = run_study(
            PROFILES[profile],
            runs,
            open_images(manifest, root),
            out_folder,
            runner=(runner or RunnerOptions()).runner(),
            cache=cache,
            on_epochs=on_epochs,
        )
    _print_done(len(runs), failures, out_folder)
    return 1 if failures else 0


def _print_done(runs: int, failures: Sequence[Failure], folder: Path) -> None:
    for failure in failures:
        seed = failure.run.recipe.seed
        print_error(f"{failure.run.experiment.name}, seed {seed}: {failure.reason}")
    out.print(
        f"{runs - len(failures)} of {runs} runs are finished in {escape(str(folder))}; "
        "'hemascope study report' makes the tables",
        soft_wrap=True,
    )


@app.command(name="status")
def study_status(
    folder: Path,
    *,
    profile: ProfileName | None = None,
    selection: Annotated[Selection | None, Parameter(name="*")] = None,
) -> int:
    """Show what is done, what is under way, and how long the rest will take.

    Parameters
    ----------
    folder
        Folder of the study.
    profile
        As given to `study run`; by default the one that the folder was made with.
    """
    from hemascope.study.results import StudyFolder
    from hemascope.study.status import read_status

    study = StudyFolder(folder)
    facts = study.facts()
    if facts is None:
        raise ValueError(f"{folder}: no study is here; make one with 'hemascope study run'")
    runs = (selection or Selection()).plan(profile or facts.profile)
    statuses = read_status(study, runs)
    _print_status(statuses)
    return 0


def _print_status(statuses: Sequence[RunStatus]) -> None:
    table = Table("experiment", "seed", "folder", "state", "epochs", "time left")
    for status in statuses:
        recipe = status.run.recipe
        table.add_row(
            status.run.experiment.name,
            str(recipe.seed),
            status.run.digest,
            status.state,
            f"{status.epochs_done}/{recipe.epochs}",
            _duration(status.seconds_left),
        )
    out.print(table)
    left = [status.seconds_left for status in statuses if status.seconds_left is not None]
    done = sum(status.state == "done" for status in statuses)
    total = _duration(sum(left) if len(left) == len(statuses) else None)
    out.print(f"{done} of {len(statuses)} runs done, time left: {total or 'none'}")


@app.command(name="report")
def study_report(
    folder: Path, *, out_folder: Annotated[Path, Parameter(name="--out")] = Path("docs")
) -> int:
    """Write STUDY.md, study.html and the figures from a study's results. Needs 'hemascope[study]'.

    The results are collected in the folder `study` beside STUDY.md, one folder per profile, without
    weights, small enough to be committed; given that folder, the pages are written anew from it.

    Parameters
    ----------
    folder
        Folder of the study.
    out_folder
        Where the pages go.
    """
    from hemascope.study.report import write_report

    studies = write_report(folder, out_folder)
    runs = sum(len(found) for study in studies for found in study.runs.values())
    out.print(
        f"tables of {runs} runs written to {escape(str(out_folder / 'STUDY.md'))} and "
        f"study.html. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    """0,1,2 as numbers. Raises ValueError for anything else."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(f"--seeds takes numbers with commas between, not '{text}'") from None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds == 0:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
