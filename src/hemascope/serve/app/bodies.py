"""Bodies of requests, read within limits: so many bytes, in so much time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.requests import ClientDisconnect, Request

from hemascope.serve.app.problems import ProblemError

IN_MEMORY = 8 * 1024 * 1024  # bytes of an archive; more goes to the disk


def kind_of(request: Request) -> str:
    """The media type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_long(request: Request, largest: int) -> None:
    """Raises a Problem for a body whose length is declared and too large, before any is read."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > largest:
        raise _too_large(largest)


async def read_body(request: Request, largest: int, seconds: float) -> bytes:
    """The whole body. Raises a Problem for one that is empty, too large, too slow or broken off."""
    parts = bytearray()
    await _receive(request, largest, seconds, parts.extend)
    return bytes(parts)


async def spool_body(request: Request, largest: int, seconds: float, folder: Path) -> IO[bytes]:
    """A large body as a file that has no name, opened at its start. Raises a Problem as above."""
    file: IO[bytes] = SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115
    try:
        await _receive(request, largest, seconds, file.write)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


async def _receive(
    request: Request, largest: int, seconds: float, take: Callable[[bytes], object]
) -> None:
    refuse_long(request, largest)
    total = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                total += len(part)
                if total > largest:
                    raise _too_large(largest)
                take(part)
    except TimeoutError:
        raise ProblemError(408, f"the body did not arrive within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise ProblemError(400, "the body broke off") from None
    if not total:
        raise ProblemError(400, "the body is empty")


def _too_large(largest: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {largest} bytes")
