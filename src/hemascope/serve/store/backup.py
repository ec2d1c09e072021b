"""Backup and restore of a store whose database is a file; while the station runs, too."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from hemascope.errors import StorageError
from hemascope.files import atomic_path, sha256_of
from hemascope.serve.store.copied import copy_files, restore_files
from hemascope.serve.store.database import DATABASE, Store, is_database
from hemascope.serve.store.images import ImageFolder


def back_up(store: Store, folder: Path) -> int:
    """Copies the database as it is at one moment, and all images, and gives their number.

    The bundles that the station made are copied too, and the counts that other programs asked for.
    Images and bundles are there before the rows that name them, so that none is missing in the
    copy. A folder that has a backup already gets what is new. Raises StorageError for PostgreSQL,
    which has pg_dump.
    """
    if not store.is_sqlite:
        raise StorageError(
            "back up the database with pg_dump, and then copy the folder of the store"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    source = store.engine.url.database
    assert source is not None
    with (
        atomic_path(folder / DATABASE) as temporary,
        closing(sqlite3.connect(source)) as live,
        closing(sqlite3.connect(temporary)) as copy,
    ):
        live.backup(copy)
    copy_files(store.folder, folder)
    return _copy_images(store.images, ImageFolder(folder / "images"))


def restore(backup: Path, folder: Path) -> int:
    """Makes a store of a backup, in a folder that has none, and gives the number of images.

    Raises StorageError for a backup that is damaged, and for a folder with a store in it.
    """
    if (folder / DATABASE).exists():
        raise StorageError(f"{folder}: there is a store already; restore into another folder")
    if not is_database(backup / DATABASE):
        raise StorageError(f"{backup}: no backup, or a damaged one")
    restore_files(backup, folder)
    number = _copy_images(ImageFolder(backup / "images"), ImageFolder(folder / "images"))
    with atomic_path(folder / DATABASE) as temporary:
        shutil.copyfile(backup / DATABASE, temporary)
    return number


def _copy_images(source: ImageFolder, target: ImageFolder) -> int:
    hashes = list(source.list_hashes())
    for sha256 in hashes:
        path = target.path(sha256)
        if not path.exists() or sha256_of(path.read_bytes()) != sha256:
            path.unlink(missing_ok=True)
            target.add(source.read(sha256))
    return len(hashes)
