"""The bundles and the counts of a store in a backup, with a list of the SHA-256 of each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hemascope.errors import StorageError
from hemascope.files import is_torn, sha256_of, write_atomic
from hemascope.serialization import from_json, to_json

LIST_FILE = "files.json"
BUNDLES, COUNTS = "bundles", "counts"
RECORD = "job.json"  # of a count; one without it has not all its fields yet
TRIES = 5


def copy_files(source: Path, target: Path) -> None:
    """Copies the bundles and counts of a store, also while they change, and lists their hashes.

    What an earlier copy has besides is removed at last. Raises StorageError for what changes all
    the time.
    """
    listed: dict[str, str] = {}
    for folder in _find_folders(source):
        listed |= _copy_folder(source, folder, target)
    write_atomic(target / LIST_FILE, to_json(listed))
    for name in (BUNDLES, COUNTS):
        for path in _find_files(target / name):
            if path.relative_to(target).as_posix() not in listed:
                path.unlink()


def restore_files(backup: Path, target: Path) -> None:
    """Copies what the list in a backup names; an older backup has none.

    Raises StorageError, before anything is copied, for a file that is missing or was altered.
    """
    problems = verify_files(backup)
    if problems:
        raise StorageError(f"{backup}: {problems[0]}; take another backup")
    for name in _read_list(backup):
        write_atomic(target / name, (backup / name).read_bytes())


def verify_files(backup: Path) -> list[str]:
    """What is wrong with the files that the list in a backup names, in a sentence each."""
    problems = []
    for name, sha256 in _read_list(backup).items():
        try:
            content = (backup / name).read_bytes()
        except OSError as error:
            problems.append(f"the file {name} cannot be read: {error.strerror}")
            continue
        if sha256_of(content) != sha256:
            problems.append(f"the file {name} was altered")
    return problems


def _read_list(backup: Path) -> dict[str, str]:
    """The hashes by the paths in a backup. Raises StorageError for a list that is damaged."""
    path = backup / LIST_FILE
    if not path.exists():
        return {}
    try:
        listed = from_json(path.read_bytes(), dict[str, str])
    except ValueError:
        raise StorageError(f"{path}: damaged; take another backup") from None
    for name in listed:
        first, *rest = PurePosixPath(name).parts or ("",)
        if first not in (BUNDLES, COUNTS) or ".." in rest or set(name) & set("\\:"):
            raise StorageError(f"{path}: names '{name}', which is in no backup")
    return listed


def _find_folders(source: Path) -> Iterator[Path]:
    """The folder of each bundle, and of each count whose fields are there."""
    for name in (BUNDLES, COUNTS):
        for folder in sorted((source / name).glob("*/")):
            if name == BUNDLES or (folder / RECORD).exists():
                yield folder


def _copy_folder(source: Path, folder: Path, target: Path) -> dict[str, str]:
    """Copies a folder as it is at one moment, and gives the hashes of its files."""
    for _ in range(TRIES):
        before = _describe(folder)
        try:
            hashes = {
                path.relative_to(source).as_posix(): _copy_file(
                    path, target / path.relative_to(source)
                )
                for path in before
            }
        except FileNotFoundError:  # what was forgotten meanwhile
            continue
        if _describe(folder) == before:
            return hashes
    raise StorageError(f"{folder}: changes while it is copied; begin the backup again")


def _describe(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each file; they tell whether a folder has changed."""
    found = {}
    for path in _find_files(folder):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = status.st_size, status.st_mtime_ns
    return found


def _find_files(folder: Path) -> list[Path]:
    """The files below a folder that are whole; links are no files of a store's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if not is_torn(path))


def _copy_file(source: Path, target: Path) -> str:
    """Copies a file unless the same is there, and gives its hash."""
    content = source.read_bytes()
    sha256 = sha256_of(content)
    if not target.exists() or sha256_of(target.read_bytes()) != sha256:
        write_atomic(target, content)
    return sha256
