"""Settings: what an administrator decides of a service."""

from __future__ import annotations

from dataclasses import dataclass, field

from hemascope.processors import count_processors

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Limits of a service. Times are in seconds, sizes in bytes.

    `token` is what programs must send; it is never shown by `repr`. `window` is how long a batch
    waits for more images while others are worked on, and `batch_size` how many it takes at most. Of
    images that wait, `queue` are kept; a request for more is refused. An answer takes at most
    `timeout`, a body at most `body_timeout`. `jobs` counts may wait or run at once, and `kept`
    finished ones are kept.
    """

    token: str = field(repr=False)
    window: float = 0.001
    batch_size: int = 8
    queue: int = 64
    timeout: float = 30.0
    body_timeout: float = 30.0
    largest_image: int = 32 * MEGABYTE
    largest_lines: int = 64 * MEGABYTE
    largest_archive: int = 512 * MEGABYTE
    lines: int = 64
    fields: int = 1000
    jobs: int = 8
    kept: int = 64
    drain: float = 30.0
    workers: int = field(default_factory=count_processors)

    def __post_init__(self) -> None:
        if len(self.token) < 16:
            raise ValueError("the token must have at least 16 characters")
        if self.window < 0:
            raise ValueError(f"the window must not be negative, as {self.window:g} is")
        for name in ("batch_size", "queue", "jobs", "kept", "lines", "fields", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', ' ')} must be at least 1")
        if self.lines > self.queue:
            raise ValueError("the queue must hold the lines of a request")
        for name in ("timeout", "body_timeout", "drain"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name.replace('_', ' ')} must be more than 0")
