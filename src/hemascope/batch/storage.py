"""Files on a disk or in an object store, by their paths and addresses (s3://bucket/cell.jpg)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
)

from hemascope.batch.inputs import is_address
from hemascope.files import write_atomic

T = TypeVar("T")

AWS_ERROR = re.compile(r"AWS Error (\w+) during \w+ operation:? ?(.*?)(?: \(Request ID.*)?$", re.S)
NO_PERMISSION = {"ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"}
PASSING = {  # what a store says of itself, not of the file
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "SERVICE_UNAVAILABLE",
    "SLOW_DOWN",
    "THROTTLING",
}
WAITS = (1, 4, 16)  # seconds before another try, after the three of pyarrow's own


class StorageError(ValueError):
    """Storage that refuses or cannot be reached; its text says which and why."""


class Folder:
    """A folder on a disk, or what lies under an address; its files appear whole or not at all.

    An object store shows an object when all of it has arrived; on a disk it is renamed. All
    methods raise StorageError for what a store refuses, and OSError for a disk's errors.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.absolute = address if is_address(address) else os.path.abspath(address)
        self._system, self._path = opened(address)

    def names(self) -> list[str]:
        """The names of the files directly in it, sorted; none where there is no such folder."""
        selector = FileSelector(self._path, allow_not_found=True)
        with explained(self.address):
            found = self._system.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == FileType.File)

    def has(self, name: str) -> bool:
        with explained(self.address):
            found = self._system.get_file_info(f"{self._path}/{name}")
        return bool(found.type == FileType.File)

    def read(self, name: str) -> bytes:
        with explained(self.address), self._system.open_input_stream(f"{self._path}/{name}") as f:
            return bytes(f.read())

    def write(self, name: str, content: bytes) -> None:
        path = f"{self._path}/{name}"
        if isinstance(self._system, LocalFileSystem):
            write_atomic(Path(path), content)
            return

        def put() -> None:
            with self._system.open_output_stream(path) as file:
                file.write(content)

        with explained(self.address):
            _patiently(put)

    def remove(self, name: str) -> None:
        with explained(self.address):
            self._system.delete_file(f"{self._path}/{name}")


def opened(address: str) -> tuple[FileSystem, str]:
    """The file system of a path or an address, and the path in it, without a slash at its end.

    pyarrow's own where it has one (s3, gs, hdfs, file), else fsspec's. S3 is asked where
    AWS_ENDPOINT_URL says, with the credentials that AWS's other tools use. Raises StorageError
    for what neither knows.
    """
    if not is_address(address):
        return LocalFileSystem(), os.path.abspath(address)
    scheme, _, rest = address.partition("://")
    authority, _, key = rest.partition("/")
    system, top = _system(scheme, authority)
    return system, f"{top.rstrip('/')}/{key}".rstrip("/")


@lru_cache(maxsize=32)
def _system(scheme: str, authority: str) -> tuple[FileSystem, str]:
    # Only the bucket goes through pyarrow's addresses: a key may hold what an address may not.
    address = f"{scheme}://{authority or '/'}"
    try:
        with explained(address):
            system, top = FileSystem.from_uri(address)
            return system, str(top)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise StorageError(f"{address}: {error}") from None
    try:
        import fsspec

        return PyFileSystem(FSSpecHandler(fsspec.filesystem(scheme))), authority
    except ImportError as error:  # of the package for this kind of address
        raise StorageError(f"{address}: {error}") from None
    except ValueError:
        raise StorageError(
            f"{address}: unknown kind of address; s3:// and gs:// are known, and what fsspec knows"
        ) from None


def files_at(address: str) -> list[str]:
    """The file at an address, or the files under it at any depth, sorted, without hidden ones.

    Raises StorageError where the store cannot be reached, or refuses.
    """
    system, path = opened(address)
    with explained(address):
        if system.get_file_info(path).type == FileType.File:
            return [address]
        try:  # pyarrow's allow_not_found would hide that there is no such bucket
            found = system.get_file_info(FileSelector(path, recursive=True))
        except FileNotFoundError:
            return []
    start = len(path.strip("/"))
    below = [info.path.strip("/")[start:] for info in found if info.type == FileType.File]
    return sorted(address.rstrip("/") + inside for inside in below if "/." not in inside)


def read(address: str) -> bytes:
    """What lies at a path or an address. Raises OSError, for which `reason` has words.

    A store that cannot be reached or asks for patience is asked again, for about half a minute.
    """
    system, path = opened(address)

    def get() -> bytes:
        with system.open_input_stream(path) as file:
            return bytes(file.read())

    return _patiently(get)


def _patiently(ask: Callable[[], T]) -> T:
    for wait in WAITS:
        try:
            return ask()
        except OSError as error:
            found = AWS_ERROR.search(str(error))
            if found is None or found[1] not in PASSING:
                raise
            time.sleep(wait)
    return ask()


def reason(error: OSError) -> str:
    """In a few words why a file could not be read or written, without its address."""
    text = str(error)
    aws = AWS_ERROR.search(text)
    code, detail = aws.groups() if aws else ("", text)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if code == "NO_SUCH_BUCKET":
        return "no such bucket"
    if isinstance(error, PermissionError) or code in NO_PERMISSION:
        return "no permission to read it"
    return f"cannot be read: {' '.join(detail.split()) or code}"


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turns the errors of an object store into a StorageError."""
    try:
        yield
    except OSError as error:
        if not is_address(address):
            raise
        why = reason(error)
        if why.startswith("no permission"):
            why = "no permission; are the credentials set (AWS_ACCESS_KEY_ID or AWS_PROFILE)?"
        raise StorageError(f"{address}: {why}") from None
