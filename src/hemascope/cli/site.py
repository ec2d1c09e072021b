"""Options of `evaluate` for cells of another laboratory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from hemascope.bundle.bundle import Card
from hemascope.cli.terminal import out, share
from hemascope.data.external import SITES, LabelledCell, Site, cells_of, read_site
from hemascope.data.manifest import Manifest
from hemascope.data.open_manifest import open_manifest
from hemascope.metrics.class_subset import AT_LEAST
from hemascope.records import Evaluation, SiteScores


@dataclass(frozen=True)
class SiteOptions:
    """What `evaluate` is told of a site."""

    site: str | None = None
    """A public data set of another laboratory, jiangxi or bccd: MANIFEST is its folder."""
    um_per_pixel: float | None = None
    """How many micrometres a pixel of these images is wide; by default they look like the
    training images."""
    against: Path | None = None
    """Manifest or folder of labelled images, such as the training laboratory's, to compare the
    site's images with: stain, ground, sharpness, size."""
    against_split: str | None = None
    """Compare with the rows of this split only, such as pool."""

    def __post_init__(self) -> None:
        if self.site is not None and self.um_per_pixel is not None:
            raise ValueError("--site knows its own scale; leave --um-per-pixel out")
        if self.against is not None and self.site is None and self.um_per_pixel is None:
            raise ValueError("--against compares a site's images; add --site or --um-per-pixel")
        if self.against_split is not None and self.against is None:
            raise ValueError("--against-split is the split of --against; add that")

    @property
    def known(self) -> Site | None:
        """The record of the site, if it is a known one."""
        return None if self.site is None else SITES.get(self.site)

    def cells(
        self, path: Path, root: Path | None, split: str | None, card: Card
    ) -> list[LabelledCell]:
        """The labelled cells in the site's folder, a manifest, or a folder with one a class."""
        if self.site is not None:
            if root is not None or split is not None:
                raise ValueError("--site reads the site's own files; leave --root and --split out")
            return read_site(self.site, path)
        return cells_of(selected(path, root, split, card), self.um_per_pixel)

    def with_appearance(
        self, found: Evaluation, cells: Sequence[LabelledCell], card: Card, progress: Any
    ) -> Evaluation:
        """The evaluation of a site with its images' statistics; any other as it is."""
        from hemascope.evaluation.appearance import compared, matched, measured

        if found.site is None:
            return found
        ours = measured(cells, card.input, progress)
        if self.against is None:
            return replace(found, site=replace(found.site, appearance=compared(ours)))
        others = cells_of(selected(self.against, None, self.against_split, card))
        theirs = measured(matched(cells, others), card.input, progress)
        site = replace(
            found.site,
            appearance=compared(ours, theirs),
            reference=title_of(self.against, self.against_split),
        )
        return replace(found, site=site)


def title_of(path: Path, split: str | None) -> str:
    """What a set of images is called: its folder, and the split."""
    full = path.resolve()
    return " ".join(filter(None, [full.name if full.is_dir() else full.parent.name, split]))


def selected(path: Path, root: Path | None, split: str | None, card: Card) -> Manifest:
    """The labelled images that a user names, or those of a split, in the model's spelling."""
    manifest = open_manifest(path, root, card.classes)
    return manifest if split is None else manifest.select(split)


def print_site(site: SiteScores) -> None:
    """Accuracy, balanced accuracy and calibration on the cells of the shared classes."""
    names = ", ".join(site.shared) or "none"
    out.print(f"{site.n} cells of the classes with {AT_LEAST} or more: {escape(names)}")
    table = Table("named among", "accuracy", "balanced accuracy", "calibration error")
    rows = {"all classes of the model": site.among_all, "these classes only": site.among_shared}
    for title, scores in rows.items():
        figures = (
            scores.accuracy,
            scores.balanced_accuracy,
            scores.expected_calibration_error,
        )
        table.add_row(
            title,
            *(f"{share(f.value)} ({share(f.low)} – {share(f.high)})" for f in figures),
        )
    out.print(table)
