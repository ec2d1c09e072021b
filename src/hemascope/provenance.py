"""Where a result comes from: versions, commit, data, device. Stands in every result."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hemascope.processors import count_processors

PACKAGES = ("hemascope", "numpy", "pillow", "onnxruntime", "torch", "accelerate")


def provenance(data: str = "", device: str = "cpu") -> dict[str, str]:
    """Facts about this moment and machine; `data` is the hash of the images that were used."""
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": data,
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(count_processors()),
        "device": device,
    }
    return facts | {name: found for name in PACKAGES if (found := _version(name))}


def data_hash(entries: Iterable[tuple[str, str]]) -> str:
    """One hash over images and labels, whatever their order: of (SHA-256, label) pairs."""
    lines = sorted(f"{sha256} {label}\n" for sha256, label in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of the source tree this package runs from; empty for an installed one."""
    folder = Path(__file__).parent
    if not any((parent / ".git").exists() for parent in folder.parents[:3]):
        return ""
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(folder),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
