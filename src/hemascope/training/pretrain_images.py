"""Images without labels as cached frames; what cannot be read is passed over."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.data.cache import open_cache
from hemascope.errors import ImageError, ManifestError
from hemascope.files import sha256_of
from hemascope.preprocess import InputSpec, View
from hemascope.processors import count_processors
from hemascope.provenance import data_hash
from hemascope.training.images import widen_spec
from hemascope.training.pretrain_recipe import PretrainRecipe


@dataclass(frozen=True)
class PretrainData:
    """Frames (N,F,F,3), of which the network's input is the `inner` part of the side.

    `digest` identifies them. `damaged` says of each file that could not be read which, and why.
    """

    frames: ImageArray
    inner: float
    digest: str
    damaged: tuple[str, ...] = ()


def prepare_views(
    recipe: PretrainRecipe,
    views: Sequence[View],
    cache: Path,
    progress: ProgressCallback | None = None,
) -> PretrainData:
    """The images that can be read, decoded into the cache folder.

    Raises ManifestError where there are too few for a batch, or one has a scale and the recipe has
    no `microns`.
    """
    scaled = next((view for view in views if view.um_per_pixel is not None), None)
    if scaled is not None and recipe.microns is None:
        raise ManifestError(
            f"{scaled.image!s}: its scale is given, but the recipe does not say how many "
            "micrometres the model sees; set microns (--microns)"
        )
    wide = widen_spec(recipe.spec)
    readable: list[View] = list(views)
    damaged: list[str] = []
    _check_number(len(readable), 0, recipe)
    try:
        frames = open_cache(readable, wide, cache, progress)
    except ImageError:  # only then is every file tried, and decoded twice
        readable, damaged = _separate(views, wide)
        _check_number(len(readable), len(damaged), recipe)
        frames = open_cache(readable, wide, cache, progress)
    digest = data_hash((sha256_of(frame.tobytes()), "") for frame in frames)
    return PretrainData(frames, recipe.crop / wide.crop, digest, tuple(damaged))


def _check_number(readable: int, damaged: int, recipe: PretrainRecipe) -> None:
    passed_over = f" ({damaged} more could not be read)" if damaged else ""
    if not readable:
        raise ManifestError(f"there are no images to learn from{passed_over}")
    if readable < recipe.batch_size:
        raise ManifestError(
            f"{readable} images{passed_over} are too few for a batch of {recipe.batch_size}; give "
            "more images, or a smaller batch_size (--batch-size)"
        )


def _separate(views: Sequence[View], spec: InputSpec) -> tuple[list[View], list[str]]:
    """The views that can be read, and what is wrong with the others."""

    def fault(view: View) -> str:
        try:
            spec.load(view)
        except ImageError as error:
            text = str(error)
            return text if str(view.image) in text else f"{view.image!s}: {text}"
        return ""

    with ThreadPoolExecutor(count_processors()) as pool:
        faults = list(pool.map(fault, views))
    readable = [view for view, text in zip(views, faults, strict=True) if not text]
    return readable, [text for text in faults if text]
