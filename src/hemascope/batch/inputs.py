"""Which images files, folders, patterns and manifests name, and what was passed over there."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.data.manifest import read_manifest
from hemascope.errors import ManifestError
from hemascope.folders import NOTHING, PassedOver, find_files, find_folders, has_suffix
from hemascope.preprocess import IMAGE_SUFFIXES

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Inputs:
    """Paths of images, in order and without repeats, and what was passed over beside them."""

    images: list[str]
    passed_over: PassedOver = NOTHING


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
    images: dict[str, None] = {}  # keeps the order, drops repeats
    passed_over = NOTHING
    for text in inputs:
        found = _find(text)
        images.update(dict.fromkeys(found.images))
        passed_over += found.passed_over
    if not images:
        raise ValueError("no images were given")
    return Inputs(list(images), passed_over)


def _find(text: str) -> Inputs:
    if os.path.isdir(text):
        found, missing = Inputs(*find_files(text, IMAGE_SUFFIXES)), "holds no images"
    elif is_address(text):
        raise ValueError(f"{text}: images in an object store are classified with --cluster")
    elif os.path.lexists(text) and text.lower().endswith(".csv"):
        folder, paths = os.path.dirname(text), whole_images(Path(text), text)
        found, missing = Inputs([os.path.join(folder, path) for path in paths]), ""
        check_some_exist(found.images, text)
    elif os.path.lexists(text):
        found, missing = Inputs([text]), ""
    else:
        found = _match(text)
        missing = "matches no images" if glob.has_magic(text) else "does not exist"
    if not found.images:
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


def whole_images(manifest: Path, name: str) -> list[str]:
    """The paths in a manifest, which is called `name`, as they stand there.

    Raises ManifestError for a row with a scale or a place, which would be passed over in silence.
    """
    rows = read_manifest(manifest).rows
    for row in rows:
        if row.um_per_pixel is not None or row.centre is not None:
            raise ManifestError(
                f"{name}: '{row.path}' has a scale or a place of its own, but whole images are "
                "classified; leave the columns um_per_pixel, x and y out, and use --um-per-pixel"
            )
    return [row.path for row in rows]


def is_image(path: str) -> bool:
    """Whether it looks like an image by its suffix, and is not hidden."""
    return has_suffix(path, IMAGE_SUFFIXES) and not os.path.basename(path).startswith(".")


def is_address(text: str) -> bool:
    """Whether it is an address, such as s3://bucket/cell.jpg, and not a path."""
    return ADDRESS.match(text) is not None
