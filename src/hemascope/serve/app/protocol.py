"""Protocol: HTTP from a connection, read by httptools, with limits on the head of a request."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 10.0  # seconds that the head of a request may take
LARGEST_HEAD = 65536  # bytes, beyond which no more of a head is waited for


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also ends connections that send no whole head of a request.

    httptools keeps whatever part of a head has come, so that its length must be limited too.
    """

    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Waits while no request is worked on: for the whole of a head, or for an answered body."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD:
            self.send_400_response("The head of the request is too long.")
        elif not self._in_head and not self.cycle.response_complete:
            self._end_waiting()
        elif self._deadline is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """The head has come; what follows of the request is its body."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """A head has begun."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._end_waiting()
        super().connection_lost(exc)

    def _end_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEAD, self.transport.close)
