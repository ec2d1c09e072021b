"""What is compared with what: the paper's experiments as changes to one recipe, and two profiles.

Adding an ablation is one line: an Experiment in its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hemascope.training.recipe import PAPER, Recipe


@dataclass(frozen=True)
class Experiment:
    """A recipe, as what it changes in the profile's own.

    `letter` is changed as well where the paper's protocol is followed to the letter. `seeds` is
    how many seeds it runs with unless others are asked for; `paper_validation` and `paper_test`
    are the accuracies that the paper prints, where known.
    """

    name: str
    title: str
    change: Mapping[str, Any] = field(default_factory=dict)
    letter: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    paper_validation: float | None = None
    paper_test: float | None = None


@dataclass(frozen=True)
class Group:
    """Experiments that the reference is compared with; `reference` is what it is called there."""

    title: str
    reference: str
    others: tuple[Experiment, ...]


REFERENCE = Experiment(
    "deep_efficientnet",
    "DeepEfficientNet",
    seeds=3,
    paper_validation=0.9938,
    paper_test=0.98,
)

# The paper names no schedule or decay for its baselines: the plain ones of Adam.
BASELINE = {"epochs": 10, "optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
MODELS = Group(
    "Models",
    REFERENCE.title,
    (
        Experiment("simple_cnn", "SimpleCNN", {"model": "simple_cnn"}, BASELINE, 3, 0.7562),
        Experiment("resnet18", "ResNet18", {"model": "resnet18"}, BASELINE, 3, 0.8469),
        Experiment(
            "efficientnet_lite",
            "EfficientNetLite",
            {"model": "efficientnet_lite"},
            BASELINE,
            3,
            0.9625,
        ),
    ),
)

PLAIN = {"drop_rate": 0.0, "label_smoothing": 0.0, "drop_path_rate": 0.0, "weight_decay": 0.0}
ABLATIONS = (
    Group(
        "Squeeze-and-excitation",
        "with",
        (
            Experiment(
                "no_squeeze_excite",
                "without",
                {"squeeze_excite": False},
                seeds=3,
                paper_validation=0.9688,
            ),
        ),
    ),
    Group(
        "Learning rate",
        "cosine",
        (
            Experiment("constant", "constant", {"schedule": "constant"}, paper_validation=0.9609),
            Experiment("step", "step", {"schedule": "step"}, paper_validation=0.9766),
        ),
    ),
    Group(
        "Regularisation",
        "all",
        (
            Experiment("no_regularisation", "none", PLAIN, paper_validation=0.95),
            Experiment(
                "dropout_only", "dropout only", PLAIN | {"drop_rate": 0.3}, paper_validation=0.9641
            ),
            Experiment(
                "smoothing_only",
                "label smoothing only",
                PLAIN | {"label_smoothing": 0.1},
                paper_validation=0.9688,
            ),
            Experiment(
                "depth_only",
                "stochastic depth only",
                PLAIN | {"drop_path_rate": 0.2},
                paper_validation=0.9625,
            ),
            Experiment(
                "decay_only",
                "weight decay only",
                PLAIN | {"weight_decay": 1e-4},
                paper_validation=0.9578,
            ),
        ),
    ),
    Group(
        "Augmentation",
        "full",
        (
            Experiment(
                "no_augmentation",
                "normalisation only",
                {"augmentation": "none"},
                paper_validation=0.9578,
            ),
            Experiment("flips", "+ flips", {"augmentation": "flips"}, paper_validation=0.9719),
            Experiment(
                "rotation",
                "+ rotation",
                {"augmentation": "flips_rotation"},
                paper_validation=0.9812,
            ),
        ),
    ),
)

LETTER_FINAL = Experiment(
    "final_letter",
    "DeepEfficientNet, on all training images",
    {"val_fraction": 0.0},
    paper_test=0.98,
)

BEST = {
    "crop": 0.6,
    "augmentation": "any_rotation",
    "learning_rate": 2e-3,
    "warmup_epochs": 2,
    "weight_decay": 0.02,
    "drop_path_rate": 0.1,
    "ema_decay": 0.998,
}
BEST_LENGTH = {"epochs": 60, "image_size": 128, "start_size": 96}
OURS = Experiment("ours", "ours", BEST, BEST_LENGTH)
FINAL = Experiment(
    "final", "ours, on all training images", BEST | {"val_fraction": 0.0}, BEST_LENGTH
)

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        REFERENCE,
        *MODELS.others,
        LETTER_FINAL,
        *(experiment for group in ABLATIONS for experiment in group.others),
        OURS,
        FINAL,
    )
}


@dataclass(frozen=True)
class Profile:
    """How long and how large every experiment is; `to_the_letter` follows the paper's protocol."""

    name: str
    base: Recipe
    to_the_letter: bool

    def recipe(self, experiment: Experiment, seed: int) -> Recipe:
        """The recipe of an experiment with a seed, in this profile."""
        letter = experiment.letter if self.to_the_letter else {}
        return replace(self.base, **experiment.change, **letter, seed=seed)


PROFILES = {
    "paper": Profile("paper", PAPER, to_the_letter=True),
    "cpu": Profile("cpu", replace(PAPER, image_size=96, epochs=10), to_the_letter=False),
}


@dataclass(frozen=True)
class Planned:
    """One run of the study."""

    experiment: Experiment
    recipe: Recipe

    @property
    def digest(self) -> str:
        """The name of its folder."""
        return self.recipe.digest()


def plan(
    profile: Profile, only: Sequence[str] = (), seeds: Sequence[int] = ()
) -> tuple[Planned, ...]:
    """The runs of a profile: first every experiment once, then those with further seeds.

    Raises ValueError for a name that is no experiment.
    """
    if unknown := [name for name in only if name not in EXPERIMENTS]:
        raise ValueError(
            f"there is no experiment '{unknown[0]}'; there are {', '.join(EXPERIMENTS)}"
        )
    chosen = [EXPERIMENTS[name] for name in only or EXPERIMENTS]
    runs = [
        (index, Planned(experiment, profile.recipe(experiment, seed)))
        for experiment in chosen
        for index, seed in enumerate(seeds or range(experiment.seeds))
    ]
    return tuple(run for _, run in sorted(runs, key=lambda run: run[0]))
