"""Recipe: everything that determines a run, apart from the images."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from hemascope.files import sha256_of
from hemascope.preprocess import InputSpec
from hemascope.serialization import from_json, to_json

ModelName = Literal[
    "simple_cnn",
    "resnet18",
    "efficientnet_lite",
    "efficientnet_lite0",
    "efficientnet_mini",
    "deep_efficientnet",
    "deep_efficientnet_printed",
]
WITHOUT_SQUEEZE_EXCITE = ("simple_cnn", "resnet18", "efficientnet_lite0", "efficientnet_mini")
PolicyName = Literal[
    "none",
    "flips",
    "flips_rotation",
    "full",
    "any_rotation",
    "domain_randomisation",
    "laboratories",
    "laboratories_other_dyes",
]

StartFrom: TypeAlias = Literal["imagenet"] | Path
"""What a run begins with: ImageNet's weights, or the folder of another run."""

# What recipes of older versions call things: old name → today's.
RENAMED_FIELDS = {
    "dropout": "drop_rate",
    "stochastic_depth": "drop_path_rate",
    "enlarge": "input_upscale",
}
RENAMED_POLICIES = {"round": "any_rotation", "sites": "domain_randomisation"}

# What the default of a field was first, where it is another today: digests are taken from it.
FIRST_DEFAULTS = {"precision": "bf16"}


@dataclass(frozen=True)
class Recipe:
    """One training run. The defaults are the study's, but for the precision, which the machine
    decides; an ablation is `replace(PAPER, ...)`.

    Parameters
    ----------
    Each field is described below its default, and by `hemascope train --help`.

    Raises
    ------
    ValueError
        For a value that cannot be; the message names the field.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from hemascope import Recipe
    >>> recipe = Recipe(model="efficientnet_mini", image_size=128, epochs=24)
    >>> replace(recipe, label_smoothing=0.0).epochs
    24
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
        ...
    ValueError: epochs must be at least 1, not 0
    """

    model: ModelName = "deep_efficientnet"
    """Architecture."""
    squeeze_excite: bool = True
    """Squeeze-and-excitation in the EfficientNets' blocks; the others have none."""
    drop_rate: float = 0.3
    """Dropout before the last layer."""
    drop_path_rate: float = 0.2
    """Rate at the last residual block, rising from 0 at the first; simple_cnn has none."""
    mixstyle: float = 0.0
    """Share of images whose feature statistics are mixed with another image's, while training."""
    frozen_layers: int = 0
    """How many of the first layers keep the weights and statistics that they start from."""
    frozen_statistics: bool = False
    """Normalise by the statistics that the network starts from, in all layers."""
    frozen_depthwise: bool = False
    """Keep the weights of all depthwise convolutions that the network starts from; their gradients
    are what takes longest on a processor."""
    normalise_stain: bool = False
    """Bring every image to one stain and light inside the network."""
    normalise_light: bool = False
    """Bring every image to one light and ground inside the network, and leave its stain."""
    input_upscale: float = 1.0
    """How many times the network enlarges its input, for finer maps of the same image."""
    image_size: int = 224
    """Side of the model's input, in pixels."""
    start_size: int | None = None
    """Progressive image size: the side in the first epoch, growing to image_size in steps of 16
    over the first two thirds of the run. None: image_size throughout."""
    crop: float = 1.0
    """Centred square that is kept of an image, as a fraction of its shorter side."""
    microns: float | None = None
    """Side of that square in micrometres, for images whose manifest says how wide their pixels are
    (um_per_pixel). None: not known, and no image may have a scale."""
    augmentation: PolicyName = "full"
    """Augmentation policy."""
    val_fraction: float = 0.2
    """Part of the training images held out for validation; 0 trains on all of them."""
    epochs: int = 50
    """Passes over the training images."""
    images_per_epoch: int | None = None
    """Images drawn in each epoch. None: as many as there are."""
    laboratory_balance: float = 0.0
    """How evenly laboratories are drawn: 0 by their number of images, 1 equally often; between, by
    a power of that number."""
    class_balance: float = 0.0
    """How evenly the classes within each laboratory are drawn, in the same way."""
    mixup: float = 0.0
    """Share of batches in which each image is blended with another, and its target likewise."""
    teacher_weight: float = 0.0
    """Share of the target that comes from the probabilities of other networks, the teachers of
    `training.loop.fit`; `hemascope train` has none."""
    auxiliary_weight: float = 0.0
    """Weight of what is learnt besides the class: subtypes that the manifest gives, and attributes
    (--attributes). It multiplies their mean cross-entropy; 0 learns the class alone."""
    batch_size: int = 32
    """Images per step, over all processes together."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimiser; betas 0.9 and 0.999, or momentum 0.9 for sgd."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    min_learning_rate: float = 1e-6
    """Where the cosine schedule ends."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate over the run; step divides it by ten after each third."""
    cycles: int = 1
    """How many times the cosine runs from the top to the bottom; the weights at each bottom are
    kept as a snapshot, and several make an ensemble. Image sizes grow over the whole run."""
    warmup_epochs: int = 0
    """Epochs of linear rise to the learning rate."""
    weight_decay: float = 1e-4
    """Weight decay; decoupled for adamw."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over the classes."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
    """Decay per step of the exponential moving average of the weights, which is then kept instead
    of the weights. 0: none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast precision. auto is bf16 where the GPU or the processor has it, else fp32; the run
    records which. fp16 needs a GPU."""
    compile: bool = False
    """Compile the network first, which takes minutes for each image size and then runs faster;
    on a processor it needs a C++ compiler."""
    seed: int = 0
    """Seed of the initial weights, the validation split, the order and the augmentation."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe).items():
            choices = get_args(hint)
            if all(isinstance(choice, str) for choice in choices) and choices:
                _choice(name, getattr(self, name), choices)
        _range("input_upscale", self.input_upscale, 1, 4)
        _range("image_size", self.image_size, 64, 1024)
        _range("start_size", self.start_size or 64, 64, self.image_size)
        _range("val_fraction", self.val_fraction, 0, 0.9)
        _range("epochs", self.epochs, 1)
        _range("batch_size", self.batch_size, 1)
        _range("learning_rate", self.learning_rate, 1e-12, 100)
        _range("min_learning_rate", self.min_learning_rate, 0, self.learning_rate)
        _range("warmup_epochs", self.warmup_epochs, 0, self.epochs - 1)
        _range("cycles", self.cycles, 1, self.epochs - self.warmup_epochs)
        if self.cycles > 1 and self.schedule != "cosine":
            raise ValueError(f"cycles are the cosine's; the schedule {self.schedule} has none")
        _range("weight_decay", self.weight_decay, 0)
        _range("label_smoothing", self.label_smoothing, 0, 0.99)
        _range("clip_norm", self.clip_norm, 0)
        _range("ema_decay", self.ema_decay, 0, 0.99999)
        _range("seed", self.seed, 0, 2**31 - 1)
        _range("frozen_layers", self.frozen_layers, 0)
        _range("drop_rate", self.drop_rate, 0, 0.99)
        _range("drop_path_rate", self.drop_path_rate, 0, 0.99)
        _range("crop", self.crop, 0.1, 1)
        _range("images_per_epoch", self.images_per_epoch or 1, 1)
        for name in ("mixstyle", "mixup", "laboratory_balance", "class_balance", "teacher_weight"):
            _range(name, getattr(self, name), 0, 1)
        _range("auxiliary_weight", self.auxiliary_weight, 0, 10)
        _range("microns", self.microns or 1, 1, 100)
        if self.normalise_stain and self.normalise_light:
            raise ValueError(
                "normalise_stain normalises the light as well; leave out normalise_light"
            )
        if not self.squeeze_excite and self.model in WITHOUT_SQUEEZE_EXCITE:
            raise ValueError(f"{self.model} has no squeeze-and-excitation to leave out")

    @property
    def spec(self) -> InputSpec:
        """What the trained model is given."""
        return InputSpec(self.image_size, self.crop, self.microns)

    def size_at(self, epoch: int) -> int:
        """Side of the training images in an epoch, counted from 0."""
        if self.start_size is None:
            return self.image_size
        growth = min(1.0, epoch / max(1.0, self.epochs * 2 / 3))
        size = self.start_size + growth * (self.image_size - self.start_size)
        return self.image_size if growth == 1.0 else int(size) // 16 * 16

    def cycle_ending(self, epoch: int) -> int | None:
        """The cycle, counted from 1, that ends with an epoch counted from 0; None where none does.

        Cycles are equally long, to an epoch.
        """
        ends = [
            self.warmup_epochs + round((self.epochs - self.warmup_epochs) * k / self.cycles)
            for k in range(1, self.cycles + 1)
        ]
        return ends.index(epoch + 1) + 1 if epoch + 1 in ends else None

    def digest(self) -> str:
        """A short hash of the fields that are not at their first default, by their first names.

        A later version that adds or renames a field, or changes its default, thus leaves the
        digests of old recipes.
        """
        first_names = {new: old for old, new in RENAMED_FIELDS.items()}
        first_policies = {new: old for old, new in RENAMED_POLICIES.items()}
        set_here = {
            first_names.get(field.name, field.name): getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != FIRST_DEFAULTS.get(field.name, field.default)
        }
        if "augmentation" in set_here:
            set_here["augmentation"] = first_policies.get(self.augmentation, self.augmentation)
        return sha256_of(to_json(set_here))[:12]


def digest_settings(recipe: Any, *left_out: str) -> str:
    """A short hash of the fields of a frozen dataclass that are not at their default."""
    changed = {
        field.name: getattr(recipe, field.name)
        for field in fields(recipe)
        if getattr(recipe, field.name) != field.default and field.name not in left_out
    }
    return sha256_of(to_json(changed))[:12]


def list_models() -> list[str]:
    """The names of the architectures that `create_model` makes and a Recipe can name.

    Returns
    -------
    list of str
        Plain networks first, then the EfficientNets.

    Examples
    --------
    >>> import hemascope
    >>> "deep_efficientnet" in hemascope.list_models()
    True
    """
    return list(get_args(ModelName))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file. Raises ValueError for anything but a valid one."""
    try:
        values = _translate_old_names(from_json(path.read_bytes(), dict))
        # Made anew, since what the file leaves out would be left out again when it is written.
        return replace(from_json(to_json(values), Recipe))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such recipe") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _translate_old_names(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's fields, which an older version may have written, by today's names."""
    renamed = {RENAMED_FIELDS.get(name, name): value for name, value in values.items()}
    if renamed.get("augmentation") in RENAMED_POLICIES:
        renamed["augmentation"] = RENAMED_POLICIES[renamed["augmentation"]]
    return renamed


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not '{value}'")


def _range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {limit}, not {value:g}")


PAPER = Recipe(precision="bf16")
"""DeepEfficientNet as the study trained it."""
