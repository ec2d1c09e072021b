"""Images to learn from without their labels: as `classify` finds them, but for split test."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hemascope.batch.inputs import check_some_exist, find_inputs, view_of
from hemascope.data.manifest import read_manifest
from hemascope.folders import NOTHING, PassedOver
from hemascope.preprocess import View


@dataclass(frozen=True)
class Unlabelled:
    """Images in order and without repeats, how many rows of split test were left out, and what
    was passed over beside."""

    views: tuple[View, ...]
    of_test: int = 0
    passed_over: PassedOver = NOTHING


def find_unlabelled(inputs: Iterable[str]) -> Unlabelled:
    """The images that files, folders, patterns and manifests name, without rows of split test.

    Nothing may be learnt from images by which a model is judged, not even without their labels.
    Raises ValueError as `find_inputs` does, and where split test is all that there is.
    """
    views: dict[View, None] = {}
    of_test, passed_over = 0, NOTHING
    for text in inputs:
        if os.path.isfile(text) and text.lower().endswith(".csv"):
            rows = read_manifest(Path(text)).rows
            kept = [row for row in rows if row.split != "test"]
            of_test += len(rows) - len(kept)
            found = [row.view(Path(os.path.dirname(text))) for row in kept]
            check_some_exist([str(view.image) for view in found], text)
        else:
            named = find_inputs([text])
            found = [view_of(item, None) for item in named.items]
            passed_over += named.passed_over
        views.update(dict.fromkeys(found))
    if not views:
        rest = f"; all {of_test} rows are of split test" if of_test else ""
        raise ValueError(f"there are no images to learn from{rest}")
    return Unlabelled(tuple(views), of_test, passed_over)
