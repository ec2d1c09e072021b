"""What clients do that mean harm, on real connections: none stops the service."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
import uvicorn

from drawn_smears import KnownLocator
from hemascope import Classifier
from hemascope.cli.serve import CONNECTIONS
from hemascope.serve.app import protocol
from hemascope.serve.app.create import create_app
from hemascope.serve.app.protocol import Protocol
from hemascope.serve.app.run import BACKLOG
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting
from test_serve import CELLS

TOKEN = "a token for tests only"
HEAD = f"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
PNG = f"{HEAD}Content-Type: image/png\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a service that waits half a second for a body, and takes up to 200 kB."""
    settings = Settings(TOKEN, body_timeout=0.5, largest_image=200_000, workers=1)
    app = create_app(settings, Counting(Classifier(threads=1), KnownLocator(), "1" * 64))
    config = uvicorn.Config(
        app,
        port=0,
        log_level="critical",
        http=Protocol,
        limit_concurrency=CONNECTIONS,
        backlog=BACKLOG,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join()


@pytest.fixture(autouse=True)
def still_serves(port: int) -> Iterator[None]:
    """After each attack the service answers as before."""
    yield
    content = CELLS["monocyte"]
    answer = ask(port, f"{PNG}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    assert answer.startswith("HTTP/1.1 200")


def ask(port: int, content: bytes, wait: float = 20) -> str:
    """What comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), wait) as connection:
        connection.sendall(content)
        found = b""
        while b"\r\n\r\n" not in found:
            part = connection.recv(65536)
            if not part:
                break
            found += part
        return found.decode(errors="replace")


def status_of(answer: str) -> int:
    return int(answer.split()[1])


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header says a size, whatever its data are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000, zlib.compress(bytes(1_000_000))),  # more pixels than are taken
        png(9_000, 9_000, zlib.compress(bytes(1000))),  # far fewer data than it says
        png(0, 0, b""),
        b"\x89PNG\r\n\x1a\n",
        b"II*\x00\xff\xff\xff\xff",
        b"\xff\xd8\xff\xe0" + bytes(1000),
    ],
    ids=["large", "short", "nothing", "cut", "tiff", "jpeg"],
)
def test_an_image_whose_header_lies_costs_one_request(port: int, content: bytes) -> None:
    assert len(content) < 200_000
    head = f"{PNG}Content-Length: {len(content)}\r\n\r\n".encode()
    assert status_of(ask(port, head + content)) == 422


def test_data_beyond_what_the_header_says_are_not_unpacked(port: int) -> None:
    content = png(2, 2, zlib.compress(bytes(100_000_000), 9))
    head = f"{PNG}Content-Length: {len(content)}\r\n\r\n".encode()
    began = time.monotonic()
    assert status_of(ask(port, head + content)) == 200  # an image of four pixels
    assert time.monotonic() - began < 10


def test_a_body_that_does_not_come_is_given_up(port: int) -> None:
    began = time.monotonic()
    assert status_of(ask(port, f"{PNG}Content-Length: 1000\r\n\r\nabc".encode())) == 408
    assert 0.4 < time.monotonic() - began < 10


def test_a_body_without_end_is_cut_off(port: int) -> None:
    head = f"{PNG}Transfer-Encoding: chunked\r\n\r\n".encode()
    part = b"10000\r\n" + bytes(65536) + b"\r\n"
    assert status_of(ask(port, head + 4 * part)) == 413
    assert status_of(ask(port, f"{PNG}Content-Length: {10**15}\r\n\r\n".encode())) == 413
    assert status_of(ask(port, f"{PNG}Content-Length: -1\r\n\r\n".encode())) == 400
    both = f"{PNG}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
    assert status_of(ask(port, both)) in (400, 408)


def test_a_client_that_goes_away_leaves_nothing(port: int) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{PNG}Content-Length: 1000\r\n\r\nabc".encode())
    time.sleep(0.7)
    headers = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(headers.encode())
        connection.settimeout(5)
        text = b""
        while b"hemascope_batch_images_count" not in text:
            text += connection.recv(65536)
    assert b"hemascope_requests_in_progress 1\n" in text  # the one that asks
    assert b"hemascope_queue_images 0\n" in text


@pytest.mark.slow
def test_two_thousand_open_connections_are_borne_and_ended(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them send nothing, half the beginning of a request; none holds its place for ever."""
    monkeypatch.setattr(protocol, "HEAD", 6.0)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(2000)]
    try:
        for connection in connections[::2]:
            connection.sendall(b"GET /hea")
        assert status_of(ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 503
        for connection in connections:
            connection.settimeout(20)
            assert connection.recv(1) == b""  # the service has ended it
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20) as answer:
            assert answer.read() == b"ok\n"
    finally:
        for connection in connections:
            connection.close()


def test_headers_that_are_too_long_are_refused(port: int) -> None:
    answer = ask(port, f"GET /healthz HTTP/1.1\r\nHost: x\r\nA: {'a' * 1_000_000}\r\n\r\n".encode())
    assert status_of(answer) in (400, 431)


def closed_after(connection: socket.socket, drip: bytes, most: float) -> float:
    """After how many seconds of sending a part every 0.1 seconds the service ends a connection."""
    connection.setblocking(False)
    began = time.monotonic()
    while time.monotonic() - began < most:
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(65536):
                break
        try:
            connection.sendall(drip)
        except (BrokenPipeError, ConnectionResetError):
            break
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("drip", [b"a", b"\r\n"], ids=["head", "lines"])
@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_comes_byte_by_byte_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, before: bytes, drip: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD", 1.0)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(before)
        time.sleep(0.2)
        connection.sendall(b"GET /" if drip == b"a" else drip)
        assert closed_after(connection, drip, 10) < 5


@pytest.mark.slow
def test_a_body_that_goes_on_after_its_answer_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD", 1.0)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{PNG}Content-Length: {10**12}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        assert closed_after(connection, bytes(10), 10) < 5


def test_an_answer_may_take_longer_than_a_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD", 0.2)
    head = f"{PNG}Content-Length: 1000\r\n\r\n".encode()
    began = time.monotonic()
    assert status_of(ask(port, head + b"abc")) == 408  # of the body, after half a second
    assert time.monotonic() - began > 0.4


def test_problems_of_the_service_itself_say_nothing_of_it(port: int) -> None:
    line = json.dumps({"image": "", "um_per_pixel": 0.1}).encode()
    kind = "Content-Type: application/x-ndjson\r\n"
    answer = ask(port, f"{HEAD}{kind}Content-Length: {len(line)}\r\n\r\n".encode() + line)
    assert status_of(answer) == 200  # an empty image is one that cannot be read
    assert "Traceback" not in answer
    assert io.StringIO(answer).readline().strip() == "HTTP/1.1 200 OK"
