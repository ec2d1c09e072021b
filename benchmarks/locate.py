"""How well cells are found on fields, and their scale: `python benchmarks/locate.py DATA OUT.json`.

DATA is the folder of the public sets, see its README. With `--left-out bccd=FOLDER`, once per
laboratory, FOLDER holds a locator that was trained without that laboratory, and all of its fields
with new boxes are scored, with the thresholds that are best on the other laboratories so left out;
`--write-card` gives the locator that ships the thresholds that are best on all of them. Else the
fields of split `test` are. Munich, Jiangxi and the single cells
of PBC's test split have no boxes of everything: white cells are looked for in their middle.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageDraw

from hemascope.arrays import FloatArray
from hemascope.bundle.bundle import pretrained_folder
from hemascope.bundle.locator_bundle import (
    LOCATOR,
    LocatorBundle,
    read_locator,
    write_locator,
)
from hemascope.data.external import MUNICH_UM_PER_PIXEL, RED_CELL_MICRONS
from hemascope.data.marked_fields import ALL_KINDS, FIELD_SETS, MarkedField
from hemascope.decoding import decode
from hemascope.files import write_atomic
from hemascope.metrics.detection import measure_detection
from hemascope.metrics.intervals import bootstrap, wilson
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.smear.choose_thresholds import best_threshold, match_cells
from hemascope.smear.locate import Locator
from hemascope.smear.records import KINDS, LocatedField

LEAST_SCORE = 0.02  # that average precision goes down to
COLOURS = {"white": "blue", "red": "lime", "platelet": "red"}
WITHIN = 0.1  # relative error of the scale
GREEN_BAR, GREEN_MICRONS = (440, 496, 105.3), 20.0  # row, left, length in pixels
BLACK_BAR, BLACK_MICRONS = (434, 558, 42.5), 8.0


def has_boxes(field: MarkedField) -> bool:
    """Whether a field was boxed anew: all of its red cells are marked."""
    return "red" in field.complete


def with_thresholds(bundle: LocatorBundle, thresholds: dict[str, float]) -> LocatorBundle:
    new = {**bundle.card.thresholds, **thresholds}
    return replace(bundle, card=replace(bundle.card, thresholds=new))


def locate_all(bundle: LocatorBundle, fields: Sequence[MarkedField]) -> list[LocatedField]:
    """The fields as a locator finds them, down to low scores."""
    locator = Locator(with_thresholds(bundle, dict.fromkeys(bundle.card.kinds, LEAST_SCORE)))
    return [locator.locate(field.path) for field in fields]


def match_all(bundle: LocatorBundle, fields: Sequence[MarkedField]) -> dict[str, Any]:
    """Found and marked cells of each kind that is marked in all the fields."""
    found = locate_all(bundle, fields)
    return {
        kind: [match_cells(f, field.cells, kind) for f, field in zip(found, fields, strict=True)]
        for kind in KINDS
        if all(kind in field.complete for field in fields)
    }


def best_thresholds(matches: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The thresholds with the best F1 on the fields of several laboratories."""
    return {
        kind: best_threshold([match for each in matches for match in each.get(kind, ())])
        for kind in KINDS
        if any(kind in each for each in matches)
    }


def score(bundle: LocatorBundle, fields: Sequence[MarkedField]) -> dict[str, Any]:
    """Figures of each kind, of all cells and of whole ones, and of the scale."""
    locator, found = Locator(bundle), locate_all(bundle, fields)
    result: dict[str, Any] = {"fields": len(fields), "locator": locator.card.model_sha256[:16]}
    for kind in KINDS:
        if not all(kind in field.complete for field in fields):
            continue
        for name, whole in (("all", False), ("whole", True)):
            matches = [
                match_cells(f, field.cells, kind, whole)
                for f, field in zip(found, fields, strict=True)
            ]
            measured = measure_detection(kind, matches, locator.card.thresholds[kind])
            result.setdefault(kind, {})[name] = asdict(measured)
    located = [locator.locate(field.path) for field in fields]
    truth = [true_scale(field, f) for f, field in zip(located, fields, strict=True)]
    result["scale"] = scale_errors(located, truth)
    return result


def show_disagreements(
    folder: Path, locator: Locator, name: str, fields: Sequence[MarkedField], most: int = 12
) -> None:
    """Pictures of the fields where drawn boxes (yellow) and found ones agree least, worst first."""
    ranked = []
    for field in fields:
        found = locator.locate(field.path)
        matches = [
            match_cells(found, field.cells, kind) for kind in KINDS if kind in field.complete
        ]
        right = sum(int(m.is_right.sum()) for m in matches)
        ranked.append(
            (2 * right / max(1, sum(len(m.scores) + m.drawn for m in matches)), field, found)
        )
    ranked.sort(key=lambda entry: entry[0])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (f1, field, found) in enumerate(ranked[:most], 1):
        picture = decode(field.path)
        pen = ImageDraw.Draw(picture)
        for cell in field.cells:
            pen.rectangle(cell.box, outline="yellow", width=3)
        for cell in found.cells:
            pen.rectangle(cell.box, outline=COLOURS[cell.kind])
        picture.save(folder / f"{name}_{number:02d}_f1_{f1:.2f}_{field.path.stem}.png")


def true_scale(field: MarkedField, found: LocatedField) -> float | None:
    """Micrometres a pixel by the boxes of the red cells that are whole; None for fewer than 3."""
    diameters = [
        cell.diameter
        for cell in field.select("red")
        if min(cell.x0, cell.y0) > 2 and cell.x1 < found.width - 2 and cell.y1 < found.height - 2
    ]
    return RED_CELL_MICRONS / float(np.median(diameters)) if len(diameters) >= 3 else None


def scale_errors(found: Sequence[LocatedField], truth: Sequence[float | None]) -> dict[str, Any]:
    """Median relative error, how many lie within a tenth, the bias, and how many tell nothing."""
    pairs = [(f, t) for f, t in zip(found, truth, strict=True) if t is not None]
    errors = np.array([f.scale.um_per_pixel / t - 1 for f, t in pairs if f.scale is not None])
    result: dict[str, Any] = {"images": len(pairs), "not_told": len(pairs) - len(errors)}
    if not len(errors):
        return result

    def statistic(times: FloatArray) -> FloatArray:
        rows = [np.repeat(errors, row.astype(int)) for row in times]
        return np.array([[np.median(np.abs(row)), np.median(row)] for row in rows])

    error, bias = bootstrap(statistic, len(errors), resamples=400)
    within = wilson(int((np.abs(errors) <= WITHIN).sum()), len(errors))
    return {**result, "median_error": error, "median_bias": bias, "within_10_percent": within}


def score_middles(locator: Locator, paths: Sequence[Path], kind: str) -> Any:
    """In how many images a cell of a kind is found whose box holds the image's middle."""
    hits = 0
    for path in paths:
        field = locator.locate(path)
        x, y = field.width / 2, field.height / 2
        hits += any(
            c.box[0] <= x <= c.box[2] and c.box[1] <= y <= c.box[3] for c in field.select(kind)
        )
    return wilson(hits, len(paths))


def score_single_cells(data: Path, locator: Locator) -> dict[str, Any]:
    """Single cells that no locator was trained on: PBC's test split, Munich and Jiangxi."""
    result: dict[str, Any] = {}
    with (data / "pbc" / "splits.csv").open(encoding="utf-8") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for label in sorted({row["label"] for row in test}):
        paths = [data / "pbc" / row["path"] for row in test if row["label"] == label]
        kind = "platelet" if label == "platelet" else "white"
        result[f"pbc test, {label}"] = score_middles(locator, paths, kind)
    for name in ("munich", "jiangxi"):
        with (data / name / "labels.csv").open(encoding="utf-8-sig") as file:
            paths = [data / name / row["path"] for row in csv.DictReader(file)]
        result[name] = score_middles(locator, paths, "white")
    return result


def score_munich_scale(data: Path, locator: Locator) -> dict[str, Any]:
    with (data / "munich" / "labels.csv").open(encoding="utf-8-sig") as file:
        paths = [data / "munich" / row["path"] for row in csv.DictReader(file)]
    found = [locator.locate(path) for path in paths]
    return scale_errors(found, [MUNICH_UM_PER_PIXEL] * len(found))


def score_bars(locator: Locator, fields: Sequence[MarkedField]) -> dict[str, Any]:
    """The scale of Chula's fields against their burnt-in bars, of 20 µm and of 8 µm."""
    truth: dict[str, list[tuple[LocatedField, float]]] = {"20 µm": [], "8 µm": []}
    for field in fields:
        pixels = np.asarray(decode(field.path)).astype(int)
        found = locator.locate(field.path)
        if _has_green_bar(pixels):
            truth["20 µm"].append((found, GREEN_MICRONS / GREEN_BAR[2]))
        elif _has_black_bar(pixels):
            truth["8 µm"].append((found, BLACK_MICRONS / BLACK_BAR[2]))
    return {
        name: scale_errors([f for f, _ in pairs], [t for _, t in pairs])
        for name, pairs in truth.items()
    }


def score_points(locator: Locator, fields: Sequence[MarkedField]) -> Any:
    """How many of the red cells that are marked with a point lie in the box of a found one."""
    hits = total = 0
    for field in fields:
        boxes = np.array([cell.box for cell in locator.locate(field.path).select("red")])
        for cell in field.cells:
            x, y = cell.centre
            inside = (
                (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
            )
            hits, total = hits + bool(inside.any()), total + 1
    return wilson(hits, total)


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of the card: of the fields that were held out, and of microscopes left out."""
    names = ("recall", "precision", "average_precision", "count_error")
    summary: dict[str, Any] = {}
    for part in ("held_out", "left_out"):
        for name, figures in result[part].items():
            row: dict[str, Any] = {"fields": figures["fields"], "scale": figures["scale"]}
            for kind in KINDS:
                if kind in figures:
                    row[kind] = {key: figures[kind]["all"][key] for key in names}
            summary[f"{name}, {part}"] = row
    return summary


def _has_green_bar(pixels: Any) -> bool:
    row, left, length = GREEN_BAR
    bar = pixels[row, left + 3 : left + int(length) - 3]
    return bool((bar[:, 1] > np.maximum(bar[:, 0], bar[:, 2]) + 40).mean() > 0.9)


def _has_black_bar(pixels: Any) -> bool:
    row, left, length = BLACK_BAR
    columns = slice(left + 3, left + int(length) - 3)
    bar, above, below = (pixels[r, columns].mean(axis=1) for r in (row, row - 3, row + 3))
    return bool((np.minimum(above, below) - bar > 25).mean() > 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--left-out", action="append", default=[], metavar="SET=FOLDER")
    parser.add_argument("--quick", action="store_true", help="boxed test fields only")
    parser.add_argument("--show", type=Path, help="folder for pictures of disagreements")
    parser.add_argument("--write-card", action="store_true", help="the main figures go on it")
    asked = parser.parse_args()
    sets = {name: fields.read(asked.data) for name, fields in FIELD_SETS.items()}
    boxed = {name: [f for f in fields if has_boxes(f)] for name, fields in sets.items()}
    result: dict[str, Any] = {"held_out": {}, "left_out": {}}
    without = dict(pair.split("=", 1) for pair in asked.left_out)
    matches = {name: match_all(read_locator(Path(f)), boxed[name]) for name, f in without.items()}
    shipped = with_thresholds(read_locator(asked.bundle), best_thresholds([*matches.values()]))
    for name, fields in boxed.items():
        test = [field for field in fields if field.split == "test"]
        if test:
            result["held_out"][name] = score(shipped, test)
            _say(name, result["held_out"][name])
            if asked.show is not None:
                show_disagreements(asked.show, Locator(shipped), name, test)
    for name, folder in without.items():
        others = best_thresholds([found for other, found in matches.items() if other != name])
        bundle = with_thresholds(read_locator(Path(folder)), others)
        result["left_out"][name] = {**score(bundle, boxed[name]), "thresholds": others}
        _say(f"left out: {name}", result["left_out"][name])
    if not asked.quick:
        locator = Locator(shipped)
        result["single_cells"] = score_single_cells(asked.data, locator)
        result["munich_scale"] = score_munich_scale(asked.data, locator)
        chula = [field for field in sets["chula"] if field.split == "test"]
        result["chula_scale_bars"] = score_bars(locator, chula)
        result["chula_points"] = score_points(locator, chula)
    result["command"] = "python benchmarks/locate.py DATA docs/evaluation/locate.json"
    result["provenance"] = provenance()
    write_atomic(asked.out, to_json(result))
    if asked.write_card:
        folder = asked.bundle or pretrained_folder() / LOCATOR
        card = replace(shipped.card, figures=summarise(result))
        write_locator(replace(shipped, card=card), folder)


def _say(name: str, figures: dict[str, Any]) -> None:
    for kind in ALL_KINDS:
        for part, m in figures.get(kind, {}).items():
            values = [
                f"{key} {m[key]['value']:.3f} ({m[key]['low']:.3f}-{m[key]['high']:.3f})"
                for key in ("recall", "precision", "average_precision", "count_error", "count_bias")
                if m[key]["value"] is not None
            ]
            print(f"{name}, {kind}, {part}: {m['drawn']} drawn, {m['found']} found:", *values)
    print(f"{name}, scale:", figures["scale"], flush=True)


if __name__ == "__main__":
    main()
