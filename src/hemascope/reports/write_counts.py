"""Differential counts as files: page, record, FHIR, HL7 and overlays, for each sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hemascope.bundle.card import Card
from hemascope.files import write_atomic
from hemascope.reports.count_fields import overlays as draw_overlays
from hemascope.reports.count_pages import comparison_page, count_page
from hemascope.serialization import to_json
from hemascope.smear.compare import Comparison
from hemascope.smear.counted import DifferentialCount, NamedField
from hemascope.smear.fhir import to_fhir
from hemascope.smear.hl7 import to_hl7

UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class CountFiles:
    """The files that are written for each sample; with several samples, each has its own name."""

    report: Path | None
    json: Path | None
    fhir: Path | None
    hl7: Path | None
    overlays: Path | None
    several: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that were asked for, as they were asked for."""
        return tuple(filter(None, (self.report, self.json, self.fhir, self.hl7)))

    def of(self, path: Path, sample: str) -> Path:
        """Where the file of a sample is."""
        if not self.several:
            return path
        return path.with_name(f"{path.stem}-{UNSAFE.sub('_', sample)}{path.suffix}")

    def write(
        self,
        count: DifferentialCount,
        read_fields: Callable[[], Iterator[NamedField]],
        card: Card,
        count_unlike: bool,
    ) -> None:
        """Writes the files of one sample; one that was not counted has a page and a record only."""
        name = count.sample
        if self.report is not None:
            fields = read_fields() if count.status == "ok" else iter(())
            page = count_page(count, fields, card, count_unlike)
            write_atomic(self.of(self.report, name), page)
        if self.json is not None:
            write_atomic(self.of(self.json, name), to_json(count))
        if count.status != "ok":
            return
        if self.fhir is not None:
            write_atomic(self.of(self.fhir, name), to_fhir(count))
        if self.hl7 is not None:
            write_atomic(self.of(self.hl7, name), to_hl7(count))
        if self.overlays is not None:
            folder = self.overlays / UNSAFE.sub("_", name) if self.several else self.overlays
            for number, (field, png) in enumerate(draw_overlays(read_fields(), card, count_unlike)):
                write_atomic(folder / f"{number:04d}_{Path(field.path).stem}.png", png)

    def write_comparison(self, comparison: Comparison, card: Card) -> None:
        """Writes a comparison with manual counts beside the page and the record."""
        if self.report is not None:
            write_atomic(_beside(self.report), comparison_page(comparison, card))
        if self.json is not None:
            write_atomic(_beside(self.json), to_json(comparison))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-comparison{path.suffix}")
