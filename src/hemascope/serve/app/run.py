"""run_app: the application on uvicorn, until a signal stops it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from hemascope.serve.app.protocol import Protocol
from hemascope.stopping import SIGNALS

BACKLOG = 2048
KEEP_ALIVE = 15  # seconds


class Server(uvicorn.Server):
    """uvicorn's server; a signal that stopped it is not raised again, as its work was finished."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops gracefully at the first signal, and at once at a second one."""
        ignored = signal.SIG_IGN  # such as SIGHUP by nohup, which stays so
        numbers = [number for number in SIGNALS if signal.getsignal(number) is not ignored]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_app(app: ASGIApp, host: str, port: int, drain: float, connections: int) -> None:
    """Serves until SIGINT or SIGTERM; then takes no more requests, and finishes those that run.

    Of more than `connections` open ones, the further ones are refused with 503.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=connections,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(drain),
    )
    Server(config).run()
