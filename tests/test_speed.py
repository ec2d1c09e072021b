"""The benchmark: that it times what it says and works out its ratios; never how fast it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drawn import draw_folder
from hemascope.cli import app
from hemascope.evaluation import speed
from hemascope.models import create_model, plain_pipeline


def transform(size: int) -> Callable[[Image.Image], Tensor]:
    """What torchvision's does, which cannot be installed beside every torch."""

    def apply(image: Image.Image) -> Tensor:
        pixels = np.asarray(image.resize((size, size)), dtype=np.float32) / 255
        return (
            torch.from_numpy((pixels - plain_pipeline.MEAN) / plain_pipeline.STD)
            .permute(2, 0, 1)
            .float()
        )

    return apply


@pytest.mark.slow
def test_every_way_is_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pipeline, "_transform", transform)
    monkeypatch.setattr(plain_pipeline, "_mobile_net", lambda: create_model("efficientnet_lite", 8))
    monkeypatch.setattr(speed, "ONE_BY_ONE", 3)
    monkeypatch.setattr(plain_pipeline, "WORKERS", 0)
    draw_folder(tmp_path / "cells", 1, seed=0, size=80)
    out = tmp_path / "benchmark.json"
    words = ["benchmark", str(tmp_path / "cells"), "--turns", "2", "--out", str(out)]
    assert app(words, result_action="return_value") == 0
    found = json.loads(out.read_bytes())
    assert found["images"] == 8
    ways = {way["name"]: way for way in found["throughput"]}
    assert list(ways) == [
        speed.OURS,
        "plain way, same network, same pixels",
        "plain way, same network, 224 pixels",
        "plain way, DeepEfficientNet, 224 pixels",
        "plain way, MobileNetV3-Small, 224 pixels",
    ]
    assert ways[speed.OURS]["times"] == [1, 1]
    for way in ways.values():
        for ours, rate, times in zip(
            ways[speed.OURS]["images_per_second"], way["images_per_second"], way["times"],
            strict=True,
        ):  # fmt: skip
            assert times == pytest.approx(ours / rate)
    assert [one["name"] for one in found["latency"]] == list(ways)
    for one in found["latency"]:
        assert 0 < one["p50"] <= one["p95"] <= one["p99"]
    assert 0 < found["start_seconds"] < 30
    with pytest.raises(ValueError, match="--force"):
        app(words, result_action="return_value")


def test_the_plain_way_is_fed_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pipeline, "_transform", transform)
    monkeypatch.setattr(plain_pipeline, "WORKERS", 0)
    monkeypatch.setattr(plain_pipeline, "BATCH", 3)
    draw_folder(tmp_path, 1, seed=0, size=80)
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    network = create_model("efficientnet_lite", 8).eval()
    found = plain_pipeline.PlainPipeline(network, 64).classify_all(paths)
    assert [len(part) for part in found] == [3, 3, 2]
    with torch.inference_mode(), Image.open(paths[4]) as image:
        alone = network(transform(64)(image.convert("RGB"))[None]).softmax(1)
    assert found[1][1].numpy() == pytest.approx(alone[0].numpy(), abs=1e-5)
