"""Files on a disk or in an object store, by their paths and addresses (s3://bucket/cell.jpg)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow.fs import (
    AwsStandardS3RetryStrategy,
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
    S3FileSystem,
)

from hemascope.batch.inputs import is_address
from hemascope.errors import StorageError
from hemascope.files import write_atomic

# pyarrow has one error class for all that S3 refuses; its text begins with "AWS Error" and a code.
NO_PERMISSION = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
ATTEMPTS = 7  # of a request to S3 that is busy or out of reach, over about half a minute


class Folder:
    """A folder on a disk, or a prefix in an object store; files appear whole or not at all.

    An object store shows an object once all of it has arrived; on a disk the file is written under
    another name and then renamed. All methods raise StorageError for what a store refuses, and
    OSError for errors of a disk.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.absolute = address if is_address(address) else os.path.abspath(address)
        self._system, self._path = locate(address)

    def names(self) -> list[str]:
        """The names of the files directly in it, sorted; none where there is no such folder."""
        selector = FileSelector(self._path, allow_not_found=True)
        with explain_errors(self.address):
            infos = self._system.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == FileType.File)

    def has(self, name: str) -> bool:
        """Whether a file of this name exists."""
        with explain_errors(self.address):
            infos = self._system.get_file_info(f"{self._path}/{name}")
        return bool(infos.type == FileType.File)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises StorageError."""
        with (
            explain_errors(self.address),
            self._system.open_input_stream(f"{self._path}/{name}") as f,
        ):
            return bytes(f.read())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file. Raises StorageError."""
        path = f"{self._path}/{name}"
        if isinstance(self._system, LocalFileSystem):
            write_atomic(Path(path), content)
            return
        with explain_errors(self.address), self._system.open_output_stream(path) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Removes a file that may be missing. Raises StorageError."""
        with explain_errors(self.address):
            self._system.delete_file(f"{self._path}/{name}")


def locate(address: str) -> tuple[FileSystem, str]:
    """The file system of a path or an address, and the path in it, without a slash at its end.

    It is pyarrow's own where there is one (s3, gs, hdfs, file), and fsspec's otherwise. S3 is
    reached at AWS_ENDPOINT_URL, if that is set, with the credentials that AWS's other tools use. A
    request to S3 that fails because the store is busy or out of reach is repeated, for about half a
    minute. Raises StorageError for an address that neither library knows.
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
        with explain_errors(address):
            system, top = FileSystem.from_uri(address)
            return _with_retries(system), str(top)
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


def _with_retries(system: FileSystem) -> FileSystem:
    """The same file system; S3's repeats its requests ATTEMPTS times, with growing pauses."""
    if not isinstance(system, S3FileSystem):
        return system
    return S3FileSystem(
        region=system.region,
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def files_at(address: str) -> list[str]:
    """The file at an address, or the files under it at any depth, sorted, without hidden ones.

    Raises StorageError where the store cannot be reached, or refuses.
    """
    system, path = locate(address)
    with explain_errors(address):
        if system.get_file_info(path).type == FileType.File:
            return [address]
        try:  # allow_not_found would hide that the bucket does not exist
            infos = system.get_file_info(FileSelector(path, recursive=True))
        except FileNotFoundError:
            return []
    start = len(path.strip("/"))
    below = [info.path.strip("/")[start:] for info in infos if info.type == FileType.File]
    return sorted(address.rstrip("/") + inside for inside in below if "/." not in inside)


def read(address: str) -> bytes:
    """The content at a path or an address. Raises OSError, which `reason` puts into words."""
    system, path = locate(address)
    with system.open_input_stream(path) as file:
        return bytes(file.read())


def reason(error: OSError) -> str:
    """Why a file could not be read or written, as the end of a sentence."""
    text = " ".join(str(error).split()).partition(" (Request ID")[0]
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if "AWS Error NO_SUCH_BUCKET" in text:
        return "no such bucket"
    if isinstance(error, PermissionError) or any(f"AWS Error {c}" in text for c in NO_PERMISSION):
        return "no permission to read it"
    return f"cannot be read: {text}"


@contextmanager
def explain_errors(address: str) -> Iterator[None]:
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
