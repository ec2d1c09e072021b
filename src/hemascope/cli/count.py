"""`hemascope count`: the photographs of smears → located cells, named, and a differential count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from hemascope.cli.options import (
    BundlePath,
    Force,
    ImageList,
    LocatorPath,
    MachineOptions,
    Machines,
    MaxPixels,
    Resume,
    bundle_folder,
    limit_pixels,
)
from hemascope.cli.terminal import (
    escape,
    out,
    print_error,
    print_last_line,
    print_warning,
    progress_bar,
    refuse_existing,
    refuse_shared,
)
from hemascope.inference.classifier import Classifier
from hemascope.records import Interval
from hemascope.reports.write_counts import CountFiles
from hemascope.smear.compare import ManualCount, compare_counts, read_manual_counts
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import CountOptions
from hemascope.smear.field_shards import NameShards, name_here
from hemascope.smear.locate import Locator
from hemascope.smear.naming import check_width
from hemascope.smear.run import count_to
from hemascope.smear.samples import Sample, Samples, find_samples
from hemascope.smear.shares import count_classes, nucleated_of
from hemascope.wording import fill


@dataclass(frozen=True)
class CountTables:
    """What is written of all samples, and of each."""

    out: Path = Path("counts.csv")
    """The table: .csv, .jsonl or .parquet. One row per sample: cells and percentages per class
    with their intervals, what was not counted, the scale, and flags."""
    report: Path | None = None
    """Write a page as well (.html): the fields with their cells, the table, the cells by class.
    With several samples, this and the next files are one each, named after the sample."""
    cells: Path | None = None
    """Write a table with a row for each located cell."""
    json: Path | None = None
    """Write the whole record."""
    fhir: Path | None = None
    """Write a FHIR R4 Bundle (.json), of a preliminary report."""
    hl7: Path | None = None
    """Write an HL7 v2.5.1 message ORU^R01, likewise."""
    overlays: Path | None = None
    """Folder for the fields with their boxes drawn on them (.png)."""
    resume: Resume = False
    force: Force = False

    def files(self, samples: tuple[Sample, ...]) -> CountFiles:
        """The files of each sample. Raises ValueError for one that exists, or that two share."""
        several = len(samples) > 1
        files = CountFiles(self.report, self.json, self.fhir, self.hl7, self.overlays, several)
        _check_files(files, samples, self.force or self.resume)
        return files


@dataclass(frozen=True)
class BloodOptions:
    """What is known of the blood and its photographs, and which cells count."""

    wbc: float | None = None
    """The white cell count of the blood in 10⁹/L, for numbers in a volume."""
    um_per_pixel: float | Literal["auto"] = "auto"
    """How many micrometres a pixel is wide; by default (auto) the red cells tell it."""
    count_unlike: Annotated[bool, Parameter(negative="")] = False
    """Count cells that are unlike the training cells too, by the names of the fallback model;
    measure it on your own cells first."""

    def __post_init__(self) -> None:
        if self.um_per_pixel != "auto":
            check_width(self.um_per_pixel)

    def given(self, locator: Locator) -> CountOptions:
        """What is asked of a count whose cells this locator finds."""
        width = None if self.um_per_pixel == "auto" else self.um_per_pixel
        return CountOptions(width, self.count_unlike, locator.card.model_sha256)


def count(
    fields: ImageList,
    *,
    tables: Annotated[CountTables | None, Parameter(name="*")] = None,
    compare: Path | None = None,
    blood: Annotated[BloodOptions | None, Parameter(name="*")] = None,
    bundle: BundlePath = None,
    locator: LocatorPath = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    machines: MachineOptions = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Find the cells on the photographs of a smear, and write its differential count.

    Parameters
    ----------
    fields
        A folder per sample; or a list of paths (.txt), which is one sample; or a manifest (.csv)
        with the columns path and sample, and wbc if it is known; or files and patterns.
    compare
        A table of manual counts (.csv) with a row per sample: sample, and the cells of each class;
        or percentages, with how many cells were counted in a column cells.
    strict
        Exit with 1 if any field cannot be read, or any sample cannot be counted.
    """
    limit_pixels(max_pixels)
    tables, blood = tables or CountTables(), blood or BloodOptions()
    machines = machines or Machines()
    found = find_samples(fields, blood.wbc)
    outputs = tables.files(found.samples)
    refuse_shared(tables.out, tables.cells, *outputs.files)
    classifier = Classifier(bundle_folder(bundle), machines.threads)
    manual = _read_manual(compare, classifier)
    finder = Locator.from_bundle(locator, threads=1)
    counts = _count(found, tables, outputs, finder, classifier, blood, machines)
    if manual:
        _compare(counts, manual, outputs, classifier)
    written = (tables.out, tables.cells, *outputs.files, tables.overlays)
    _print_counts(counts, found, ", ".join(map(str, filter(None, written))))
    return _exit_status(counts, strict)


def _count(
    found: Samples,
    tables: CountTables,
    outputs: CountFiles,
    locator: Locator,
    classifier: Classifier,
    blood: BloodOptions,
    machines: Machines,
) -> list[DifferentialCount]:
    """Counts the samples, and writes their tables and files."""
    with progress_bar("counting") as progress:
        return count_to(
            tables.out,
            found.samples,
            locator,
            classifier,
            blood.given(locator),
            cells=tables.cells,
            on_count=lambda made, read: outputs.write(
                made, read, classifier.card, blood.count_unlike
            ),
            name_shards=_name_shards(machines),
            progress=progress,
            resume=tables.resume,
            force=tables.force,
        )


def _name_shards(machines: Machines) -> NameShards:
    """What names the fields: this process, or the workers of a cluster."""
    if not machines.cluster:
        return name_here
    from hemascope.smear.cluster import name_on_cluster

    return partial(name_on_cluster, workers=machines.workers)


def _check_files(outputs: CountFiles, samples: tuple[Sample, ...], force: bool) -> None:
    """Raises ValueError for files that exist, or that two samples would share."""
    for path in outputs.files:
        names: dict[Path, str] = {}
        for sample in samples:
            target = outputs.of(path, sample.name)
            if target in names:
                raise ValueError(
                    f"{target}: would be written for '{names[target]}' and for '{sample.name}'; "
                    "rename one of the samples"
                )
            names[target] = sample.name
            refuse_existing(force, target)


def _read_manual(path: Path | None, classifier: Classifier) -> tuple[ManualCount, ...]:
    """The manual counts, read before anything is counted, so that a bad table costs no time."""
    if path is None:
        return ()
    rows = count_classes(nucleated_of({}, classifier.card))
    return read_manual_counts(path, [row.name for row in rows])


def _compare(
    counts: list[DifferentialCount],
    manual: tuple[ManualCount, ...],
    outputs: CountFiles,
    classifier: Classifier,
) -> None:
    """Prints how our counts compare with manual ones, and writes it beside the page and record."""
    comparison = compare_counts(counts, manual)
    table = Table("class", "bias", "limits of agreement", "slope", "kappa", "within own error")
    for found in comparison.classes:
        agreement, slope = found.agreement, found.line.slope.value
        table.add_row(
            escape(found.title),
            _points(agreement.bias.value),
            f"{_points(agreement.lower.value)} to {_points(agreement.upper.value)}",
            "–" if slope is None else f"{slope:.2f}",
            "–" if found.kappa is None else f"{found.kappa:.2f}",
            f"{found.within} of {comparison.samples}",
        )
    out.print(table)
    if comparison.missing:
        print_warning(f"only on one side of --compare: {', '.join(comparison.missing)}")
    outputs.write_comparison(comparison, classifier.card)


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def _print_counts(counts: list[DifferentialCount], found: Samples, written: str) -> None:
    for made in counts:
        _print_count(made)
    ok, n = sum(made.status == "ok" for made in counts), len(counts)
    done = fill("{ok} of {n} {n?sample|samples} counted", ok=ok, n=n)
    fields = fill("{n} {n?field|fields}", n=found.fields)
    print_last_line(f"{done}, {fields}", found.passed_over, written)


def _print_count(count: DifferentialCount) -> None:
    """A count as a table, with the shares that are to be trusted, and its flags."""
    if count.status != "ok":
        print_error(f"{count.sample}: {count.status}")
        return
    words = "as counted" if count.trusted == "raw" else "corrected"
    table = Table("class", "cells", f"share, {words}", "95 % interval", title=escape(count.sample))
    for row in count.classes:
        share = count.trusted_share(row)
        name = f"  {row.title}" if row.part_of else row.title
        table.add_row(escape(name), str(row.share.successes), *_texts(share, row.share.successes))
    per_100 = count.trusted_erythroblasts
    if per_100 is not None:
        found, limits = f"{per_100.value:.1f} per 100", f"{per_100.low:.1f} – {per_100.high:.1f}"
        if not count.erythroblasts.count:
            found, limits = "not seen", f"at most {per_100.high:.1f} per 100"
        table.add_row("erythroblasts", str(count.erythroblasts.count), found, limits)
    without = sum(count.unidentified.values())
    table.add_row("without a name", str(without), "", "")
    out.print(table)
    for flag in count.flags:
        print_warning(f"{count.sample}: {flag.name}: {flag.text}")


def _texts(share: Interval | None, cells: int) -> tuple[str, str]:
    if share is None:
        return "–", "–"
    if not cells:
        return "not seen", f"at most {100 * share.high:.1f} %"
    return f"{100 * share.value:.1f} %", f"{100 * share.low:.1f} – {100 * share.high:.1f}"


def _exit_status(counts: list[DifferentialCount], strict: bool) -> int:
    """1 where no sample could be counted, or where `--strict` says so."""
    failed = [count for count in counts if count.status != "ok"]
    damaged = any(count.unreadable for count in counts)
    return 1 if len(failed) == len(counts) or (strict and (failed or damaged)) else 0
