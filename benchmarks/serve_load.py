"""The service under load, against `Classifier.stream` on the same images, in one run.

    python benchmarks/serve_load.py --images 100000 --out docs/evaluation/serve_load.json

It starts `hemascope serve` on a free port with drawn cells as requests, and measures: the
throughput of the library and of the service with 16 clients, the latency of single images with
one client and within the library, p50 and p99 under load, errors, the memory of the service's
process before, during and after, what happens at twice the clients with a small queue, and what
2,000 open connections that send nothing cost those who send images. The 16 clients are wrk's
(Debian's package wrk), which leaves the processors to the service; the others are threads here.
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
from tempfile import TemporaryDirectory

from hemascope import BLOOD_CELLS, Classifier
from hemascope.data.synthetic import draw_cell
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json

CLIENTS, DISTINCT, IDLE = 16, 64, 2000
PARTS, LIBRARY = 10, 1500  # after each, the memory is noted; images of the library before each
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
wrk.headers["Authorization"] = "Bearer TOKEN"
local requests, next = {}, 0
init = function()
  for number = 0, DISTINCT - 1 do
    local file = io.open("FOLDER/" .. number .. ".jpg", "rb")
    requests[number] = wrk.format(nil, "/v1/predictions", nil, file:read("*a"))
    file:close()
  end
end
request = function()
  next = (next + 1) % DISTINCT
  return requests[next]
end
done = function(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("FOUND %d %f %f %f %d %d\\n", summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status, broken))
end
"""


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
    found: dict[str, object] = {"images": chosen.images}
    with served(chosen.locator, queue=64) as (port, token, process):
        load(port, token, images, 200, CLIENTS)  # warm
        before = memory_of(process)
        found["one client"] = load(port, token, images, 300, 1).describe()
        memory, part = [before], chosen.images / PARTS
        loads, library = [], []
        with TemporaryDirectory() as folder:
            for _ in range(PARTS):  # in turn, since the speed of a machine changes in minutes
                library.append(measure_library(classifier, images, LIBRARY))
                rate = loads[-1].rate if loads else library[-1]["images_per_second"]
                loads.append(load_by_wrk(port, token, images, Path(folder), part / rate))
                memory.append(memory_of(process))
        found["library"] = {key: statistics.mean(one[key] for one in library) for key in library[0]}
        found["16 clients"] = join(loads)
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


@dataclass(frozen=True)
class WrkLoad:
    """What wrk's clients met: requests, of which `refused` had another status than 200, and
    `broken` connections."""

    requests: int
    seconds: float
    median_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def load_by_wrk(
    port: int, token: str, images: list[bytes], folder: Path, seconds: float
) -> WrkLoad:
    """Sixteen clients of wrk that send images for so many seconds."""
    for number, content in enumerate(images):
        (folder / f"{number}.jpg").write_bytes(content)
    script = folder / "post.lua"
    values = {"TOKEN": token, "FOLDER": str(folder), "DISTINCT": str(len(images))}
    text = SCRIPT
    for name, value in values.items():
        text = text.replace(name, value)
    script.write_text(text)
    words = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
    done = subprocess.run(
        [*words, "-s", str(script), f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    requests, wall, median, p99, refused, broken = line.split()[1:]
    return WrkLoad(int(requests), float(wall), float(median), float(p99), int(refused), int(broken))


def join(loads: list[WrkLoad]) -> dict[str, object]:
    """Figures of several loads: medians of their medians, and the largest 99 %."""
    requests, refused = sum(one.requests for one in loads), sum(one.refused for one in loads)
    return {
        "images_per_second": (requests - refused) / sum(one.seconds for one in loads),
        "median_ms": statistics.median(one.median_ms for one in loads),
        "p99_ms": max(one.p99_ms for one in loads),
        "statuses": {"200": requests - refused, "others": refused},
        "broken_connections": sum(one.broken for one in loads),
    }


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
    for image in islice(cycle(images), 100):
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
