"""What every request passes: counting, the token, headers that browsers obey."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.metrics import Metrics
from hemascope.serve.app.problems import problem_response

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Hemascope-Notice": RESEARCH_USE_ONLY,
}
ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """Lets requests through that carry the token, or need none; counts all.

    `needs_token` says of a path whether programs must send the token for it.
    """

    def __init__(
        self, app: ASGIApp, token: str, metrics: Metrics, needs_token: Callable[[str], bool]
    ) -> None:
        self.app, self.metrics, self.needs_token = app, metrics, needs_token
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499  # where the client went away

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in ENCODED if header[0] not in given),
                ]
            await send(message)

        self.metrics.in_progress += 1
        try:
            if self.needs_token(scope["path"]) and not self._has_token(scope):
                refusal = problem_response(
                    401,
                    "send the token in the header 'Authorization: Bearer …'",
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send_guarded)
            else:
                await self.app(scope, receive, send_guarded)
        finally:
            self.metrics.in_progress -= 1
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.observe_request(method, status, time.perf_counter() - began)

    def _has_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)
