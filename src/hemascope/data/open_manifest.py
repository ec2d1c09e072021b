"""open_manifest: whatever a user names as a set of images, as a Manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hemascope.classes import ClassSet
from hemascope.data.manifest import Manifest, manifest_from_folder, match_spelling, read_manifest
from hemascope.data.public import unpack_bloodmnist
from hemascope.errors import ManifestError


def open_manifest(
    path: Path, root: Path | None = None, classes: ClassSet | None = None
) -> Manifest:
    """The images of a manifest CSV, a folder with one folder a class, or a BloodMNIST file.

    The last are unpacked into a folder beside the file, of its name. With a class set, labels
    are brought to its spelling. Raises ManifestError for what is none, or does not hold up.
    """
    if path.suffix == ".npz":
        manifest = unpack_bloodmnist(path, path.with_suffix(""))
    elif path.is_dir():
        manifest = manifest_from_folder(path)
    else:
        return read_manifest(path, root, classes)
    if classes is None:
        return manifest
    rows = (
        replace(row, label=match_spelling(row.label, row.path, classes)) for row in manifest.rows
    )
    return replace(manifest, rows=tuple(rows))


def below(manifest: Manifest, folder: Path) -> Manifest:
    """The same images, with paths relative to a folder that holds the manifest's root.

    Raises ManifestError for a folder that does not hold it.
    """
    for given, top in (
        (Path(os.path.abspath(manifest.root)), Path(os.path.abspath(folder))),
        (manifest.root.resolve(), folder.resolve()),
    ):
        if given.is_relative_to(top):  # by the names that were given, or else by where links lead
            inside = given.relative_to(top)
            break
    else:
        raise ManifestError(
            f"the images are in {manifest.root}, which is not in {folder}; write the manifest in "
            "the images' folder or one above it"
        )
    rows = (replace(row, path=(inside / row.path).as_posix()) for row in manifest.rows)
    return replace(manifest, root=folder, rows=tuple(rows))
