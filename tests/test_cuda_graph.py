"""A step recorded as a CUDA graph, on machines that have a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hemascope.classes import BLOOD_CELLS
from hemascope.data.auxiliary import AuxiliaryColumn, AuxiliaryTargets
from hemascope.training import loop
from hemascope.training.cuda_graph import WARM_UP
from hemascope.training.images import TrainingData
from hemascope.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

RECIPE = Recipe(
    image_size=64,
    start_size=64,
    epochs=4,
    batch_size=8,
    drop_rate=0.0,
    drop_path_rate=0.0,
    val_fraction=0.0,
    ema_decay=0.9,
    precision="fp32",
)


def drawn_data() -> TrainingData:
    """Frames whose brightness tells their class."""
    random = np.random.default_rng(0)
    targets = tuple(int(t) for t in random.integers(0, 8, 96))
    frames = random.integers(0, 40, (96, 64, 64, 3)) + 25 * np.array(targets)[:, None, None, None]
    known = np.stack([np.array(targets) // 4, np.array(targets)], 1)
    known[::3] = -1
    columns = (AuxiliaryColumn("half", ("a", "b")), AuxiliaryColumn("own", BLOOD_CELLS.names))
    return TrainingData(
        BLOOD_CELLS,
        frames.astype(np.uint8),
        targets,
        1.0,
        None,
        (),
        "drawn",
        auxiliary=AuxiliaryTargets(columns, known),
    )


def losses(
    monkeypatch: pytest.MonkeyPatch, graphed: bool, auxiliary_weight: float
) -> tuple[list[float], torch.Tensor]:
    monkeypatch.setattr(loop, "_can_be_graphed", lambda recipe, accelerator: graphed)
    run = loop.Run(replace(RECIPE, auxiliary_weight=auxiliary_weight), drawn_data())
    found = [run.train_epoch(epoch, None)[0] for epoch in range(RECIPE.epochs)]
    run.validate()
    kept = run.eval_model.state_dict()
    return found, next(kept[name] for name in kept if name.endswith("head.weight")).cpu()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_recorded_step_learns_as_the_plain_one_does(
    monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    plain, plain_head = losses(monkeypatch, graphed=False, auxiliary_weight=weight)
    graphed, graphed_head = losses(monkeypatch, graphed=True, auxiliary_weight=weight)
    assert len(drawn_data().targets) // RECIPE.batch_size > WARM_UP
    assert graphed == pytest.approx(plain, rel=0.02)
    assert plain[-1] < 0.9 * plain[0]
    assert torch.allclose(graphed_head, plain_head, atol=0.02)


def test_a_recorded_step_follows_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate that the optimiser reads in the graph is the one that the schedule sets."""
    monkeypatch.setattr(loop, "_can_be_graphed", lambda recipe, accelerator: True)
    run = loop.Run(RECIPE, drawn_data())
    run.train_epoch(0, None)
    monkeypatch.setattr(loop, "learning_rate", lambda recipe, progress: 0.0)
    before = run.network.state_dict()["head.weight"].clone()
    run.train_epoch(1, None)
    assert torch.equal(run.network.state_dict()["head.weight"], before)
