"""train(recipe, …): fields → a locator bundle with its thresholds. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from hemascope.arrays import ProgressCallback
from hemascope.bundle.export_locator import export_locator
from hemascope.bundle.locator_bundle import LocatorBundle, LocatorCard
from hemascope.data.marked_fields import FIELD_SETS, MarkedField
from hemascope.models.locator import STRIDE, TYPICAL
from hemascope.provenance import provenance
from hemascope.smear.choose_thresholds import LEAST, choose_thresholds
from hemascope.smear.records import KINDS
from hemascope.training.locator import LocatorRecord, fit_locator
from hemascope.training.locator_fields import LocatorData, load_fields
from hemascope.training.locator_recipe import LocatorRecipe

MOST_FIELDS = 60  # of a laboratory, that thresholds are chosen on


def train(
    recipe: LocatorRecipe,
    folder: Path,
    out: Path,
    name: str,
    on_read: ProgressCallback | None = None,
    on_round: Callable[[LocatorRecord], None] | None = None,
    on_field: ProgressCallback | None = None,
) -> LocatorBundle:
    """Trains in the folder `out` on the public sets in `folder`; continues the run that is there.

    Raises ManifestError for sets that are not there, and TrainingError as `fit_locator` does.
    """
    torch.set_num_threads(1)
    data = load_fields(recipe, folder, on_read)
    card = LocatorCard(
        name=name,
        kinds=KINDS,
        thresholds=dict.fromkeys(KINDS, LEAST),
        red_diameter=recipe.red_diameter,
        stride=STRIDE,
        typical=TYPICAL,
        model_sha256="",
        parameters=0,
        training_data=_describe(data),
        recipe=asdict(recipe),
        provenance=provenance(data.digest),
    )
    bundle = export_locator(fit_locator(recipe, data, out, on_round), card)
    return choose_thresholds(bundle, fields_to_choose_on(recipe, folder), on_field)


def fields_to_choose_on(recipe: LocatorRecipe, folder: Path) -> list[MarkedField]:
    """Training fields whose red cells are all marked, some of each laboratory."""
    chosen: list[MarkedField] = []
    for name, fields in FIELD_SETS.items():
        if name == recipe.leave_out:
            continue
        marked = [
            field
            for field in fields.read(folder)
            if field.split == "train" and "red" in field.complete
        ]
        step = max(1, -(-len(marked) // MOST_FIELDS))
        chosen += marked[::step]
    return chosen


def _describe(data: LocatorData) -> str:
    parts = [f"{len(fields)} of {name}" for name, fields in data.groups.items()]
    return f"fields: {', '.join(parts)}; those of the test split are not among them"
