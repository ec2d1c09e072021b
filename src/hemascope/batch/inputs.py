"""Which images files, folders, patterns and manifests name, and what was passed over there."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from hemascope.data.manifest import read_manifest
from hemascope.errors import ManifestError
from hemascope.folders import NOTHING, PassedOver, find_files, find_folders, has_suffix
from hemascope.preprocess import IMAGE_SUFFIXES, View

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A whole image by its path or address; or a View of one, where a manifest gives scale or place.
Item: TypeAlias = str | View


@dataclass(frozen=True)
class Inputs:
    """What to classify, in order and without repeats, and what was passed over beside it."""

    items: Sequence[Item]
    passed_over: PassedOver = NOTHING

    @property
    def images(self) -> list[str]:
        """The paths of whole images.

        Raises ManifestError where a manifest gives one a scale or a place of its own, which would
        be passed over in silence.
        """
        for item in self.items:
            if isinstance(item, View):
                raise ManifestError(
                    f"'{path_of(item)}' has a scale or a place of its own in its manifest, but "
                    "whole images are taken here; leave the columns um_per_pixel, x and y out"
                )
        return [path_of(item) for item in self.items]


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of the images that files, folders and patterns name; see `find_inputs`."""
    return find_inputs(inputs).images


def find_inputs(inputs: Iterable[str]) -> Inputs:
    """The images that files, folders (with all below them) and globs name, in order.

    In folders, links are followed, and each real folder is searched once; files that do not look
    like images by their suffix are passed over, and hidden ones. A file that is named itself is
    always taken, and a .csv file is a manifest. Raises ValueError where an input matches nothing,
    a manifest of which no image is there, or nothing was found at all, and ManifestError.
    """
    items: dict[Item, None] = {}  # keeps the order, drops repeats
    passed_over = NOTHING
    for text in inputs:
        found = _find(text)
        items.update(dict.fromkeys(found.items))
        passed_over += found.passed_over
    if not items:
        raise ValueError("no images were given")
    return Inputs(list(items), passed_over)


def _find(text: str) -> Inputs:
    if os.path.isdir(text):
        found, missing = Inputs(*find_files(text, IMAGE_SUFFIXES)), "holds no images"
    elif is_address(text):
        raise ValueError(f"{text}: images in an object store are classified with --cluster")
    elif os.path.lexists(text) and text.lower().endswith(".csv"):
        found, missing = Inputs(items_of(Path(text), os.path.dirname(text))), ""
        check_some_exist([path_of(item) for item in found.items], text)
    elif os.path.lexists(text):
        found, missing = Inputs([text]), ""
    else:
        found = _match(text)
        missing = "matches no images" if glob.has_magic(text) else "does not exist"
    if not found.items:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        rest = f"; passed over: {found.passed_over}" if found.passed_over else ""
        raise ValueError(f"{text}: {missing} (looked for {kinds}{rest})")
    return found


def check_some_exist(paths: Sequence[str], where: str) -> None:
    """Raises ValueError where not one of a list's paths is there; addresses are taken to be."""
    if paths and not any(is_address(path) or os.path.lexists(path) for path in paths):
        raise ValueError(
            f"{where}: none of its {len(paths)} images is there; the first is '{paths[0]}'. Paths "
            "in a manifest start from its folder, others from the folder you are in"
        )


def _match(pattern: str) -> Inputs:
    """What a pattern matches. A folder that matches stands for all that is below it."""
    matches, unreadable = find_matches(pattern)
    images: dict[str, None] = {}
    passed_over = unreadable
    for path in matches:
        if os.path.isdir(path):
            if "**" not in pattern:
                files, beside = find_files(path, IMAGE_SUFFIXES)
                images.update(dict.fromkeys(files))
                passed_over += beside
        elif is_image(path):
            images[path] = None
        else:
            suffix = os.path.splitext(path)[1].lower()
            passed_over += PassedOver(Counter({suffix: 1}))
    return Inputs(list(images), passed_over)


def find_matches(pattern: str) -> tuple[list[str], PassedOver]:
    """The paths that a pattern matches, sorted; `**` stands for any real folder, each once."""
    before, stars, after = f"/{pattern}".replace(os.sep, "/").partition("/**/")
    if not stars and not before.endswith("/**"):
        return sorted(glob.glob(pattern)), NOTHING
    before, after = (before, after) if stars else (before.removesuffix("/**"), "*")
    tops = sorted(glob.glob(before[1:])) if len(before) > 1 else [before or "."]
    matches: dict[str, None] = {}
    passed_over = NOTHING
    for folder in filter(os.path.isdir, tops):
        below, unreadable = find_folders(folder)
        passed_over += unreadable
        for each in below:
            start = "" if each == "." else each.removeprefix("./")
            found, inside = find_matches(os.path.join(glob.escape(start), after))
            matches.update(dict.fromkeys(found))
            passed_over += inside
    return sorted(matches), passed_over


def items_of(manifest: Path, folder: str) -> list[Item]:
    """The images in a manifest, and the cells in them, whose paths start from a folder's."""
    items: list[Item] = []
    for row in read_manifest(manifest).rows:
        path = os.path.join(folder, row.path)
        is_whole = row.um_per_pixel is None and row.centre is None
        items.append(path if is_whole else View(path, row.um_per_pixel, row.centre))
    return items


def path_of(item: Item) -> str:
    """The path or the address of an image."""
    return str(item.image) if isinstance(item, View) else item


def view_of(item: Item, um_per_pixel: float | None) -> View:
    """Where to look in an image; `um_per_pixel` is for one without a scale of its own."""
    view = item if isinstance(item, View) else View(item)
    return replace(view, um_per_pixel=um_per_pixel) if view.um_per_pixel is None else view


def is_image(path: str) -> bool:
    """Whether it looks like an image by its suffix, and is not hidden."""
    return has_suffix(path, IMAGE_SUFFIXES) and not os.path.basename(path).startswith(".")


def is_address(text: str) -> bool:
    """Whether it is an address, such as s3://bucket/cell.jpg, and not a path."""
    return ADDRESS.match(text) is not None
