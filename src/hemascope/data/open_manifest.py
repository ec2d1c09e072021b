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
    path: str | Path, root: Path | None = None, classes: ClassSet | None = None
) -> Manifest:
    """The images of a manifest CSV, a folder with one folder per class, or a BloodMNIST file.

    A BloodMNIST file is unpacked into a folder of the same name beside it.

    Parameters
    ----------
    path
        The manifest (.csv), the folder, or the BloodMNIST file (.npz).
    root
        The folder that a manifest's paths are relative to; by default the manifest's own.
    classes
        A class set, to whose spelling the labels are brought.

    Returns
    -------
    Manifest
        One row per image. That the images can be read is not checked.

    Raises
    ------
    ManifestError
        For anything else, or a file or folder that is not in order; the message says where.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`:

    >>> from hemascope import open_manifest
    >>> manifest = open_manifest("cells")
    >>> manifest.class_names()[:3]
    ('basophil', 'eosinophil', 'erythroblast')
    """
    path = Path(path)
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
