"""LocatorRecipe: everything that determines the training of a locator, apart from the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hemascope.training.recipe import digest_settings

ROUND = 100  # steps between two checkpoints


@dataclass(frozen=True)
class LocatorRecipe:
    """One training run of the network that finds cells on fields.

    Parameters
    ----------
    Each field is described below its default, and by `hemascope train-locator --help`.

    Raises
    ------
    ValueError
        For a value that cannot be; the message names the field.

    Examples
    --------
    >>> from hemascope.training.locator_recipe import LocatorRecipe
    >>> LocatorRecipe(steps=10, leave_out="bccd").leave_out
    'bccd'
    """

    width: int = 32
    """Channels of the widest maps; the deeper ones have two and three times as many."""
    crop: int = 192
    """Side of the training crops, in pixels of the network's scale; a multiple of 16."""
    red_diameter: float = 30.0
    """How wide red cells are at the network's scale, in pixels."""
    scales: float = 2.0
    """How many times larger or smaller the cells of a crop may be than at that scale."""
    any_scale: float = 0.5
    """Share of the crops of any such scale; the others are near the network's scale."""
    too_near: float = 0.06
    """Share of the crops whose cells are three to six times too large; in these, nothing is to be
    found, so that parts of cells are not taken for cells."""
    faded: float = 0.25
    """Share of the crops whose white cells get paler cytoplasm."""
    drawn: int = 160
    """Drawn fields to train on, beside the real ones."""
    drawn_share: float = 0.15
    """Share of the crops that are cut from drawn fields."""
    leave_out: str = ""
    """A laboratory, such as bccd, whose fields are not trained on."""
    steps: int = 3000
    """Steps of the optimiser."""
    stop_after: int | None = None
    """Steps after which the run ends, a multiple of 100, before its learning rate has fallen to 0;
    it can be continued later. None: all steps."""
    batch_size: int = 16
    """Crops per step."""
    learning_rate: float = 2e-3
    """Highest learning rate; it rises over the first 100 steps and falls to 0 as a cosine."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    ema_decay: float = 0.995
    """Decay per step of the moving average of the weights, which is what is kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast precision; auto is bf16 where the machine has it, else fp32."""
    seed: int = 0
    """Seed of the weights, the crops and the drawn fields."""

    def __post_init__(self) -> None:
        if self.crop < 64 or self.crop % 16:
            raise ValueError(f"crop must be a multiple of 16 from 64 on, not {self.crop}")
        limits = {
            "width": (8, 128),
            "red_diameter": (12, 100),
            "scales": (1, 4),
            "any_scale": (0, 1),
            "too_near": (0, 1),
            "faded": (0, 1),
            "drawn": (0, 10_000),
            "drawn_share": (0, 1),
            "steps": (1, 10**7),
            "stop_after": (1, self.steps),
            "batch_size": (1, 4096),
            "learning_rate": (1e-12, 1),
            "weight_decay": (0, 1),
            "ema_decay": (0, 0.99999),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value:g}")

        if self.stop_after is not None and self.stop_after % ROUND:
            raise ValueError(f"stop_after must be a multiple of {ROUND}, not {self.stop_after}")

    def digest(self) -> str:
        """A short hash of the fields that are not at their default, without where the run stops.

        Two runs with the same digest have the same weights after as many steps.
        """
        return digest_settings(self, "stop_after")
