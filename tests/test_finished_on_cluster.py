"""A finished table in a cluster's folder is known by its rows, without a cluster being started."""

from __future__ import annotations

from pathlib import Path

from drawn import draw_folder
from hemascope.batch.cluster import _count_if_finished
from hemascope.batch.local import classify_to
from hemascope.batch.shards import Shards
from hemascope.batch.storage import Folder
from hemascope.batch.tally import tally_of
from hemascope.inference.classifier import Classifier


def test_a_finished_table_is_counted_and_that_of_other_images_is_not(tmp_path: Path) -> None:
    draw_folder(tmp_path / "cells", 2, seed=0)
    paths = sorted(str(path) for path in (tmp_path / "cells").rglob("*.png"))
    classifier, out = Classifier(threads=1), tmp_path / "table"
    tally = classify_to(out, classifier, paths)
    folder = Folder(str(out))
    shards = Shards(folder, str(out))
    counts = _count_if_finished(shards, folder, classifier, paths, None)
    assert counts is not None
    assert tally_of(counts, classifier.bundle) == tally
    assert _count_if_finished(shards, folder, classifier, paths[1:], None) is None
    assert _count_if_finished(shards, folder, classifier, paths[::-1], None) is None
    empty = Folder(str(tmp_path / "empty"))
    assert _count_if_finished(Shards(empty, "empty"), empty, classifier, paths, None) is None
