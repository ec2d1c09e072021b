"""Two processes that train one model: each takes half of what one process takes whole."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drawn_training import TINY, drawn_data
from hemascope.bundle import engine
from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import manifest_from_folder
from hemascope.serialization import to_json
from hemascope.training.folder import RunFolder
from hemascope.training.loop import Run
from hemascope.training.run import train
from samples import two_classes

pytestmark = pytest.mark.slow

PLAIN = replace(TINY, augmentation="none", drop_rate=0.0, drop_path_rate=0.0)

# Trains twice without norms over the batch, which depend on how it is divided; then as its command
# line says. To start processes takes longest, so two of them do it all.
SCRIPT = """
import json, os, sys
from pathlib import Path
from torch import nn
tests, folder = map(Path, sys.argv[1:3])
sys.path.insert(0, str(tests))
import test_two_processes
from hemascope.bundle import engine
from hemascope.cli import main
norm, nn.BatchNorm2d = nn.BatchNorm2d, lambda channels: nn.GroupNorm(1, channels)
check, engine.check_graph = engine.check_graph, lambda model, size: None  # no export has such norms
test_two_processes.train_plainly(folder, "half")
losses = test_two_processes.losses_of_unevenly_known()
(folder / ("losses" + os.environ["RANK"])).write_text(json.dumps(losses))
nn.BatchNorm2d, engine.check_graph = norm, check
sys.argv[1:] = sys.argv[3:]
main()
"""


def train_plainly(folder: Path, name: str) -> RunFolder:
    """Trains on the cells in the folder, into another folder of it."""
    recipe, cells = replace(PLAIN, epochs=4), manifest_from_folder(folder / "cells")
    return train(recipe, cells, folder / name, cache=folder / "cache")


def losses_of_unevenly_known() -> list[float]:
    """The losses of a training on drawn data of which two processes know unlike parts."""
    run = Run(replace(PLAIN, epochs=3, val_fraction=0.0, auxiliary_weight=1.0), drawn_data())
    return [run.train_epoch(epoch, None)[0] for epoch in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of two classes, and what two processes made of them."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "cells").mkdir()
    two_classes(folder / "cells", 20)
    (folder / "tiny.json").write_bytes(to_json(TINY))
    (folder / "script.py").write_text(SCRIPT)
    words = ["train", folder / "cells", "--out", folder / "run", "--cache", folder / "cache"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--standalone", "--local-addr=127.0.0.1"),  # which takes a free port
            *(folder / "script.py", Path(__file__).parent, folder),
            *(*words, "--recipe", folder / "tiny.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("bundle written") == 1
    return folder


@pytest.fixture
def no_norms_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn, "BatchNorm2d", lambda channels: torch.nn.GroupNorm(1, channels))
    monkeypatch.setattr(engine, "check_graph", lambda model, size: None)


def test_two_processes_train_one_model(folder: Path, no_norms_over_the_batch: None) -> None:
    """That is compared without norms over the batch."""
    run = RunFolder(folder / "run")
    assert len(run.read_metrics()) == 2
    assert read_bundle(run.bundle).card.parameters > 0
    runs = train_plainly(folder, "one"), RunFolder(folder / "half")
    whole, half = ([record.train_loss for record in run.read_metrics()] for run in runs)
    assert half == pytest.approx(whole, rel=1e-4)
    assert whole[-1] < 0.9 * whole[0]


def test_two_processes_share_what_is_known(folder: Path, no_norms_over_the_batch: None) -> None:
    """However unevenly: the mean is over what both know."""
    expected = losses_of_unevenly_known()
    for rank in range(2):
        losses = json.loads((folder / f"losses{rank}").read_text())
        assert losses == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]
