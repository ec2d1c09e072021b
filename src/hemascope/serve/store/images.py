"""ImageFolder: encoded images by the SHA-256 of their content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hemascope.errors import StorageError
from hemascope.files import atomic_path, sha256_of

NAME = re.compile(r"[0-9a-f]{64}")


class ImageFolder:
    """A folder of images, each once; nobody chooses their names, so that none leads elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the image of this hash is. Raises ValueError for what is no hash."""
        if not NAME.fullmatch(sha256):
            raise ValueError("not a SHA-256")
        return self.folder / sha256[:2] / sha256

    def add(self, content: bytes) -> str:
        """Keeps an image, whole and on the disk before this returns, and gives its hash."""
        sha256 = sha256_of(content)
        path = self.path(sha256)
        if not path.exists():
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        return sha256

    def read(self, sha256: str) -> bytes:
        """The image of this hash. Raises StorageError for one that is missing or was altered."""
        try:
            content = self.path(sha256).read_bytes()
        except OSError as error:
            raise StorageError(f"the image {sha256} cannot be read: {error.strerror}") from None
        if sha256_of(content) != sha256:
            raise StorageError(f"the image {sha256} was altered")
        return content

    def verify(self) -> list[str]:
        """What is wrong with the images, in a sentence each."""
        problems = []
        for sha256 in self.list_hashes():
            try:
                self.read(sha256)
            except StorageError as error:
                problems.append(str(error))
        return problems

    def list_hashes(self) -> Iterator[str]:
        """The hashes of all images."""
        if self.folder.is_dir():
            for path in sorted(self.folder.glob("??/*")):
                if NAME.fullmatch(path.name):
                    yield path.name
