"""The service under load, against `Classifier.stream` on the same images, in one run.

    python benchmarks/serve_load.py --images 100000 --out docs/evaluation/serve_load.json

It starts `hemascope serve` on a free port with drawn cells as requests, and measures: the
throughput of the library and of the service with 16 clients, the latency of single images with
one client and within the library, p50 and p99 under load, errors, the memory of the service's
process before, during and after, what happens at twice the clients with a small queue, and what
2,000 open connections that send nothing cost those who send images.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from hemascope import BLOOD_CELLS, Classifier
from hemascope.data.synthetic import draw_cell
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json

CLIENTS, DISTINCT, IDLE = 16, 64, 2000
PARTS = 10  # after each, the memory is noted


@dataclass
class Load:
    """What clients met: seconds of each answered request, how many of each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall: float = 0.0

    def describe(self) -> dict[str, float | dict[str, int]]:
        """Figures, times in milliseconds."""
        quantiles = statistics.quantiles(self.seconds, n=100)
        return {
            "images_per_second": len(self.seconds) / self.wall,
            "median_ms": 1000 * statistics.median(self.seconds),
            "p99_ms": 1000 * quantiles[98],
            "statuses": {str(status): number for status, number in self.statuses.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--locator", help="folder of a network that finds cells")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    images = [_jpeg(seed) for seed in range(DISTINCT)]
    classifier = Classifier()
    library = measure_library(classifier, images, min(chosen.images, 4000))
    found: dict[str, object] = {"images": chosen.images, "library": library}
    with served(chosen.locator, queue=64) as (port, token, process):
        load(port, token, images, 200, CLIENTS)  # warm
        before = memory_of(process)
        found["one client"] = load(port, token, images, 300, 1).describe()
        memory = [before]
        loads = []
        for part in split(chosen.images, PARTS):
            loads.append(load(port, token, images, part, CLIENTS))
            memory.append(memory_of(process))
        found["16 clients"] = join(loads).describe()
        found["memory_mb"] = memory
    with served(chosen.locator, queue=CLIENTS) as (port, token, process):
        found["twice the load"] = load(port, token, images, 4000, 2 * CLIENTS + 8).describe()
        found["after it"] = load(port, token, images, 500, 8).describe()
    with served(chosen.locator, queue=64, connections=2 * IDLE) as (port, token, process):
        load(port, token, images, 200, CLIENTS)  # warm
        before = memory_of(process)
        with open_connections(port, IDLE):
            found["2000 idle connections"] = load(port, token, images, 300, 1).describe() | {
                "memory_mb": [before, memory_of(process)]
            }
    found["provenance"] = provenance()
    text = to_json(found)
    print(text.decode())
    if chosen.out is not None:
        write_atomic(chosen.out, text)


def split(number: int, parts: int) -> list[int]:
    """A number in nearly equal parts."""
    return [number * (part + 1) // parts - number * part // parts for part in range(parts)]


def join(loads: list[Load]) -> Load:
    """Several loads as one."""
    found = Load()
    for one in loads:
        found.seconds += one.seconds
        found.statuses += one.statuses
        found.wall += one.wall
    return found


@contextmanager
def open_connections(port: int, number: int) -> Iterator[None]:
    """Keeps so many connections open that send nothing, until the service ends them."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        yield


def _jpeg(seed: int) -> bytes:
    names = BLOOD_CELLS.names
    file = io.BytesIO()
    draw_cell(names[seed % len(names)], seed).save(file, "JPEG", quality=92)
    return file.getvalue()


def measure_library(classifier: Classifier, images: list[bytes], number: int) -> dict[str, float]:
    """Images per second of `stream`, and the median time of one image."""
    for _ in classifier.stream(islice(cycle(images), 64)):
        pass
    began = time.perf_counter()
    for _ in classifier.stream(islice(cycle(images), number)):
        pass
    wall, alone = time.perf_counter() - began, []
    for image in islice(cycle(images), 300):
        began = time.perf_counter()
        classifier.predict([image])
        alone.append(time.perf_counter() - began)
    return {"images_per_second": number / wall, "one_image_ms": 1000 * statistics.median(alone)}


@contextmanager
def served(
    locator: str | None, queue: int, connections: int = 1000
) -> Iterator[tuple[int, str, int]]:
    """The service in a process of its own; gives its port, token and process number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_urlsafe(24)
    words = [sys.executable, "-m", "hemascope", "serve", "--port", str(port), "--queue", str(queue)]
    words += ["--connections", str(connections)]
    words += ["--locator", locator] if locator else []
    server = subprocess.Popen(words, env=os.environ | {"HEMASCOPE_TOKEN": token})
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, token, server.pid
    finally:
        server.terminate()
        server.wait()


def load(port: int, token: str, images: list[bytes], number: int, clients: int) -> Load:
    """Sends images from so many clients at once; each keeps its connection."""
    found, lock, left = Load(), threading.Lock(), iter(range(number))

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
        while True:
            with lock:
                index = next(left, None)
            if index is None:
                return
            began = time.perf_counter()
            connection.request("POST", "/v1/predictions", images[index % len(images)], headers)
            answer = connection.getresponse()
            answer.read()
            taken = time.perf_counter() - began
            with lock:
                found.statuses[answer.status] += 1
                if answer.status == 200:
                    found.seconds.append(taken)

    threads = [threading.Thread(target=send) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.wall = time.perf_counter() - began
    return found


def memory_of(process: int) -> float:
    """The resident memory of a process, in megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError("the process does not say how much memory it has")


if __name__ == "__main__":
    main()
