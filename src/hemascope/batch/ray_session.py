"""A session with a Ray cluster: one that runs already, or one of this machine alone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from hemascope.processors import count_processors


@contextmanager
def ray_session(address: str | None = None, workers: int | None = None) -> Iterator[None]:
    """Connects to a Ray cluster for the length of a `with` block.

    A session that is open already is used. Otherwise it is the cluster at `address`; or the one
    that RAY_ADDRESS names; or one that runs on this machine; or one that is started here and shut
    down again. With `workers` and neither address, always the last, with that many processors.
    Raises ConnectionError where no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _knock(address or os.environ.get("RAY_ADDRESS", ""))
    alone = address is None and workers is not None and "RAY_ADDRESS" not in os.environ
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if alone:
            _connect("local", workers)
        else:
            try:
                _connect(address or "auto", None)
            except ConnectionError:
                if address is not None or "RAY_ADDRESS" in os.environ:
                    raise
                _connect("local", count_processors())
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place
        yield
    finally:
        ray.shutdown()


def _connect(address: str, processors: int | None) -> None:
    """To a cluster, or to a `local` one that is started with so many processors to share out."""
    ray.init(
        address=address,
        num_cpus=processors,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _knock(address: str) -> None:
    """Raises ConnectionError where no cluster answers; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # none, or a word of Ray's own, such as auto
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"{address}: no Ray cluster answers there ({error.strerror or error})"
        ) from None
