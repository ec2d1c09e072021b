"""What one core makes of a graph: onnxruntime and openvino, in several batch sizes and precisions.

    pip install openvino
    python benchmarks/engines.py model.onnx … --out docs/evaluation/engines.json

Milliseconds of processor time an image, the least of several runs on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from hemascope.bundle.session import onnxruntime
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json

BATCHES = (1, 8, 32)
RUNS = 20


@dataclass(frozen=True)
class Engine:
    """Milliseconds an image by batch size."""

    model: str
    engine: str
    milliseconds: dict[int, float]


@dataclass(frozen=True)
class Engines:
    engines: tuple[Engine, ...]
    openvino: str
    provenance: dict[str, str]


def least(run: Callable[[], Any], images: int) -> float:
    run()
    found = []
    for _ in range(RUNS):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return 1000 * min(found) / images


def by_onnxruntime(model: Path, images: np.ndarray) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


def by_openvino(precision: str, model: Path, images: np.ndarray) -> Callable[[], Any]:
    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape({"images": list(images.shape)})
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    return lambda: request.infer({"images": images})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    shape = (max(BATCHES), given.size, given.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ways: dict[str, Callable[[Path, np.ndarray], Callable[[], Any]]] = {
        "onnxruntime": by_onnxruntime,
        "openvino, single precision": lambda *what: by_openvino("f32", *what),
        "openvino, bfloat16": lambda *what: by_openvino("bf16", *what),
    }
    found = []
    for model in given.models:
        for name, way in ways.items():
            times = {batch: least(way(model, images[:batch]), batch) for batch in BATCHES}
            found.append(Engine(model.parent.name, name, times))
            print(found[-1], flush=True)
    engines = Engines(tuple(found), openvino.__version__, provenance())
    write_atomic(given.out, to_json(engines))


if __name__ == "__main__":
    main()
