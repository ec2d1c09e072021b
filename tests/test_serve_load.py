"""The service under load and when it stops: batches, a full queue, time-outs, and the drain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from hemascope.predictions import Prediction
from hemascope.preprocess import View
from hemascope.serve.app import batching
from hemascope.serve.app.archives import unpack
from hemascope.serve.app.batching import Batcher, DrainingError, QueueFullError
from hemascope.serve.app.metrics import Histogram, Metrics
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.app.settings import Settings
from test_serve import CELLS

TOKEN = "a token for tests only"


class Network:
    """Stands in for predict_images: keeps the batches, and waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[bytes]] = []
        self.classifiers: list[object] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        monkeypatch.setattr(batching, "predict_images", self)
        monkeypatch.setattr(batching, "_warm", lambda _: None)

    def __call__(self, used: object, views: Sequence[View], *_: object) -> list[Prediction]:
        self.classifiers.append(used)
        self.batches.append([view.image for view in views])  # type: ignore[misc]
        assert self.may_go_on.wait(10)
        if any(view.image == b"fail" for view in views):
            raise RuntimeError("the network failed")
        return [Prediction(str(view.image), "monocyte", 1.0, {}) for view in views]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def run(settings: Settings, work: Callable[[Batcher], Any]) -> Metrics:
    """Runs a coroutine function with a batcher that is started before and closed after."""
    metrics = Metrics()

    async def live() -> None:
        classifier: Any = SimpleNamespace(on_one_processor=None)
        batcher = Batcher(classifier, settings, metrics)
        await batcher.start()
        await work(batcher)
        if not batcher.draining:
            await batcher.close()

    asyncio.run(live())
    return metrics


def views(*names: str) -> list[View]:
    return [View(name.encode()) for name in names]


def test_images_of_many_requests_share_batches_and_each_gets_its_own(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        asked = [batcher.predict(views(f"a{n}", f"b{n}"), False) for n in range(16)]
        answers = await asyncio.gather(*asked)
        for n, found in enumerate(answers):
            assert [made.image_id for made in found] == [f"b'a{n}'", f"b'b{n}'"]

    metrics = run(Settings(TOKEN, window=0.02, batch_size=8, workers=1), work)
    assert [len(batch) for batch in network.batches] == [8, 8, 8, 8]
    assert metrics.batches.total == 32


def test_only_an_image_that_is_alone_has_all_processors(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        await batcher.predict(views("a"), False)
        await batcher.predict(views("b", "c"), False)
        alone = [used is batcher.classifier for used in network.classifiers]
        assert alone == [True, False]

    run(Settings(TOKEN, workers=1), work)


def test_a_full_queue_refuses_and_recovers(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        network.may_go_on.clear()
        running = asyncio.create_task(batcher.predict(views("a"), False))
        while not network.batches:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(batcher.predict(views("b", "c"), False))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.predict(views("d"), False)
        network.may_go_on.set()
        await asyncio.gather(running, waiting)
        assert len(await batcher.predict(views("d"), False)) == 1

    run(Settings(TOKEN, queue=2, lines=2, batch_size=1, workers=1), work)


def test_an_image_that_waits_too_long_is_dropped(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        network.may_go_on.clear()
        with pytest.raises(TimeoutError):
            await asyncio.gather(*(batcher.predict(views(name), False) for name in "ab"))
        await asyncio.sleep(0.1)
        network.may_go_on.set()
        await batcher.predict(views("c"), False)

    run(Settings(TOKEN, window=0, timeout=0.05, batch_size=1, workers=1), work)
    assert network.batches == [[b"a"], [b"c"]]


def test_a_failure_reaches_those_it_concerns_and_no_others(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="network failed"):
            await batcher.predict(views("fail"), False)
        assert len(await batcher.predict(views("a"), False)) == 1

    run(Settings(TOKEN, workers=1), work)


def test_a_stop_answers_what_waits_and_takes_no_more(network: Network) -> None:
    async def work(batcher: Batcher) -> None:
        network.may_go_on.clear()
        asked = [asyncio.create_task(batcher.predict(views(name), False)) for name in "abc"]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(DrainingError):
            await batcher.predict(views("d"), False)
        network.may_go_on.set()
        await closing
        assert len(await asyncio.gather(*asked)) == 3

    run(Settings(TOKEN, batch_size=1, workers=1), work)


def test_a_histogram_is_cumulative() -> None:
    found = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        found.observe(value)
    assert found.lines("x") == [
        "# TYPE x histogram",
        'x_bucket{le="1"} 2',
        'x_bucket{le="2"} 3',
        'x_bucket{le="+Inf"} 4',
        "x_sum 12",
        "x_count 4",
    ]


def pack(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """Its header may lie: what counts is what comes out."""
    path = pack(tmp_path / "bomb.zip", **{"a.png": bytes(30_000_000)})
    content = bytearray(path.read_bytes())
    assert len(content) < 50_000
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")  # says that it holds ten bytes
    (tmp_path / "lie.zip").write_bytes(content)
    (tmp_path / "out").mkdir()
    for name in ("bomb.zip", "lie.zip"):
        with (tmp_path / name).open("rb") as file, pytest.raises(ProblemError):
            unpack(file, tmp_path / "out", 10, 1_000_000)
        for written in (tmp_path / "out").iterdir():
            assert written.stat().st_size <= 1_000_000
            written.unlink()


def test_no_name_in_an_archive_leads_out_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "slip.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("../../etc/a.png", "/root/a.png", "x/.hidden.png", "C:\\d.png"):
            packed.writestr(name, b"x")
        packed.writestr("__MACOSX/c.png", b"x")
    out = tmp_path / "out"
    out.mkdir()
    with path.open("rb") as file:
        uploads = unpack(file, out, 10, 100)
    assert [upload.name for upload in uploads] == ["a.png", "a.png (2)", "d.png"]
    assert sorted(out.iterdir()) == [upload.path for upload in uploads]
    assert sorted(tmp_path.iterdir()) == [out, path]


def test_archives_of_other_kinds_are_refused(tmp_path: Path) -> None:
    many = pack(tmp_path / "many.zip", **{f"{n}.png": b"x" for n in range(11)})
    none = pack(tmp_path / "none.zip", **{"a.txt": b"x"})
    torn = tmp_path / "torn.zip"
    torn.write_bytes(many.read_bytes()[:-5])
    long = tmp_path / "long.zip"
    content = bytearray(many.read_bytes())
    content[-10:-6] = (2**31).to_bytes(4, "little")  # the size of its list of entries
    long.write_bytes(content)
    for path in (many, none, torn, long):
        with path.open("rb") as file, pytest.raises(ProblemError):
            unpack(file, tmp_path, 10, 1000)


@pytest.mark.slow
def test_the_command_serves_and_drains(tmp_path: Path) -> None:
    """A request that was taken before the signal is answered, and the command ends well."""
    code = (
        "import sys, hemascope.smear.locate as locate\n"
        "from drawn_smears import KnownLocator\n"
        "locate.Locator.from_bundle = lambda *_, **__: KnownLocator()\n"
        "from hemascope.__main__ import main\n"
        "main()\n"
    )
    environment = os.environ | {"HEMASCOPE_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)}
    port = "18733"
    words = ["serve", "--port", port, "--threads", "1"]
    server = subprocess.Popen([sys.executable, "-c", code, *words], env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urlopen(f"{address}/readyz", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        content = CELLS["monocyte"]
        head = f"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"Content-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(port)), 30) as connection:
            connection.sendall(head.encode() + content[:100])
            time.sleep(1)
            server.send_signal(signal.SIGTERM)
            time.sleep(1)
            connection.sendall(content[100:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "ok"
        assert server.wait(30) == 0
    finally:
        server.kill()
