"""open_manifest: whatever a user names as a set of images, as a Manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hemascope.classes import ClassSet
from hemascope.data.manifest import (
    Manifest,
    ManifestError,
    manifest_from_folder,
    read_manifest,
    spelled,
)
from hemascope.data.public import unpack_bloodmnist


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
    rows = (replace(row, label=spelled(row.label, row.path, classes)) for row in manifest.rows)
    return replace(manifest, rows=tuple(rows))


def below(manifest: Manifest, folder: Path) -> Manifest:
    """The same images, with paths relative to a folder that holds the manifest's root.

    Raises ManifestError for a folder that does not hold it.
    """
    try:
        inside = manifest.root.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ManifestError(
            f"the images are in {manifest.root}, which is not in {folder}; write the manifest in "
            "the images' folder or one above it"
        ) from None
    rows = (replace(row, path=(inside / row.path).as_posix()) for row in manifest.rows)
    return replace(manifest, root=folder, rows=tuple(rows))
