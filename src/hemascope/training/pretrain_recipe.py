"""PretrainRecipe: everything that determines a run without labels, apart from the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hemascope.preprocess import InputSpec
from hemascope.serialization import from_json
from hemascope.training.recipe import ModelName, PolicyName, Recipe, digest_settings

Method = Literal["simclr", "moco"]


@dataclass(frozen=True)
class PretrainRecipe:
    """One training run on images without labels.

    Parameters
    ----------
    Each field is described below its default, and by `hemascope pretrain --help`.

    Raises
    ------
    ValueError
        For a value that cannot be; the message names the field.

    Examples
    --------
    >>> from hemascope.training.pretrain_recipe import PretrainRecipe
    >>> PretrainRecipe(method="moco", epochs=10).queue
    4096
    >>> PretrainRecipe(batch_size=1)
    Traceback (most recent call last):
        ...
    ValueError: batch_size must be at least 2, since an image is told from the others of its batch
    """

    method: Method = "simclr"
    """What is learnt: simclr tells the two views of an image from those of the other images in the
    batch, moco one view from a queue of those that a slower copy of the network saw before."""
    model: ModelName = "efficientnet_mini"
    """Architecture, which must be that of the run that starts from this one."""
    squeeze_excite: bool = True
    """Squeeze-and-excitation in the blocks; as in the run that starts from this one."""
    normalise_stain: bool = False
    """Bring every image to one stain and light inside the network."""
    normalise_light: bool = False
    """Bring every image to one light and ground inside the network, and leave its stain."""
    input_upscale: float = 1.0
    """How many times the network enlarges its input, for finer maps of the same image."""
    image_size: int = 128
    """Side of the network's input, in pixels."""
    crop: float = 1.0
    """Centred square that is kept of an image, as a fraction of its shorter side."""
    microns: float | None = None
    """Side of that square in micrometres, for images whose scale is known, such as cells that are
    cut from fields. None: not known, and no image may have a scale."""
    augmentation: PolicyName = "any_rotation"
    """Augmentation policy, by which both views of an image are made."""
    epochs: int = 50
    """Passes over the images."""
    batch_size: int = 128
    """Images per step, each of which is seen twice."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser; betas 0.9 and 0.999, or momentum 0.9 for sgd."""
    learning_rate: float = 1e-3
    """Highest learning rate; it falls as a cosine."""
    warmup_epochs: int = 0
    """Epochs of linear rise to the learning rate."""
    weight_decay: float = 1e-4
    """Weight decay; decoupled for adamw."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    temperature: float = 0.2
    """What the cosines between views are divided by, before the softmax over them."""
    projection: int = 128
    """Outputs of the projection head, which is thrown away in the end."""
    queue: int = 4096
    """Views that moco keeps to tell an image from, at least as many as a batch has images."""
    momentum: float = 0.99
    """Share of moco's slower copy that each step leaves as it is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision, as in `train`."""
    seed: int = 0
    """Seed of the initial weights, the queue, the order and the augmentation."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"method must be one of {', '.join(get_args(Method))}, not '{self.method}'"
            )
        if self.batch_size < 2:
            raise ValueError(
                "batch_size must be at least 2, since an image is told from the others of its batch"
            )
        if self.augmentation == "none":
            raise ValueError(
                "augmentation none makes both views of an image the same, from which nothing is "
                "learnt; choose another policy"
            )
        if not 0.01 <= self.temperature <= 10:
            raise ValueError(f"temperature must be from 0.01 to 10, not {self.temperature:g}")
        if not 2 <= self.projection <= 4096:
            raise ValueError(f"projection must be from 2 to 4096, not {self.projection}")
        if self.method == "moco" and not self.batch_size <= self.queue <= 10**6:
            raise ValueError(
                f"queue must be from batch_size ({self.batch_size}) to 1000000, not {self.queue}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {self.momentum:g}")
        self.training  # noqa: B018 - checks the other fields

    @property
    def training(self) -> Recipe:
        """What this run has in common with one on labels: network, images, optimiser, schedule."""
        return Recipe(
            model=self.model,
            squeeze_excite=self.squeeze_excite,
            drop_rate=0.0,
            drop_path_rate=0.0,
            normalise_stain=self.normalise_stain,
            normalise_light=self.normalise_light,
            input_upscale=self.input_upscale,
            image_size=self.image_size,
            crop=self.crop,
            microns=self.microns,
            augmentation=self.augmentation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            min_learning_rate=self.learning_rate / 1000,
            warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            precision=self.precision,
            seed=self.seed,
        )

    @property
    def spec(self) -> InputSpec:
        """What the network is given."""
        return self.training.spec

    def digest(self) -> str:
        """A short hash of the fields that are not at their default."""
        return digest_settings(self)


def read_pretrain_recipe(path: Path) -> PretrainRecipe:
    """The recipe in a JSON file. Raises ValueError for anything but a valid one."""
    content = path.read_bytes()
    try:
        if "method" not in from_json(content, dict):
            raise ValueError("it names no method")
        return from_json(content, PretrainRecipe)
    except ValueError as error:
        raise ValueError(
            f"{path}: not the recipe of a run without labels ({error}); take another folder"
        ) from None
