"""pretrain(recipe, views, folder): a run without labels, whose weights are a start for `train`."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hemascope.arrays import ProgressCallback
from hemascope.data.augment import POLICIES, augment
from hemascope.data.cache import default_cache
from hemascope.data.dataset import CellDataset, train_loader
from hemascope.errors import TrainingError
from hemascope.files import atomic_path, is_torn, remove_torn_below, write_atomic
from hemascope.preprocess import View
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.training.checkpoint import (
    Progress,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from hemascope.training.contrastive import METHODS
from hemascope.training.curves import draw_curves
from hemascope.training.events import write_events
from hemascope.training.folder import RunFolder
from hemascope.training.images import place_of
from hemascope.training.loop import OnEpoch, load_start, network_of, record_of
from hemascope.training.machine import (
    limit_threads,
    make_accelerator,
    settle_precision,
    warn_of_slow_precision,
)
from hemascope.training.optim import build_optimizer, learning_rate, set_learning_rate
from hemascope.training.pretrain_images import PretrainData, prepare_views
from hemascope.training.pretrain_recipe import PretrainRecipe, read_pretrain_recipe
from hemascope.training.recipe import StartFrom
from hemascope.training.run import read_start

SOME_CLASSES = 2  # of the last layer, which is left out


@dataclass(frozen=True)
class PretrainFacts:
    """provenance.json: what a run learnt from, and where it ran."""

    images: int
    unreadable: int
    data: str
    provenance: dict[str, str]


def pretrain(
    recipe: PretrainRecipe,
    views: Sequence[View],
    path: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    start_from: StartFrom | None = None,
    cache: str | Path | None = None,
    on_read: ProgressCallback | None = None,
    on_step: ProgressCallback | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[RunFolder, PretrainData]:
    """Trains a network on images without labels and leaves it in a folder.

    `train(…, start_from=path)` begins with its weights. Needs 'hemascope[train]'.

    Parameters
    ----------
    recipe, views
        How to learn, and from which images. The precision `auto` becomes what this machine is fast
        in, and stays that when the run is resumed.
    path
        The run's folder: recipe, curves, a checkpoint and the weights.
    resume, force
        Continue the run that the folder holds, from its last full epoch, or replace it.
    start_from
        Folder of another run, of the same architecture, whose best weights this one begins with;
        or "imagenet".
    cache
        Folder for decoded images; by default the user's cache folder, or HEMASCOPE_CACHE.
    on_read, on_step, on_epoch
        Called with how many images are read, or steps done, and how many there are; and with the
        record of each epoch. Its accuracy is how often an image's own other view is the likest.

    Returns
    -------
    RunFolder, PretrainData
        The run, and its images; the latter say which files could not be read.

    Raises
    ------
    TrainingError
        Before anything is written, for a folder that holds another run, or something else.
    ManifestError
        Before anything is written, where there are too few images for a batch.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`:

    >>> from pathlib import Path
    >>> from hemascope import View
    >>> from hemascope.training.pretrain import pretrain
    >>> from hemascope.training.pretrain_recipe import PretrainRecipe
    >>> views = [View(str(path)) for path in sorted(Path("cells").glob("*/*.png"))]
    >>> recipe = PretrainRecipe(model="simple_cnn", image_size=64, epochs=1, batch_size=16)
    >>> run, data = pretrain(recipe, views, "without_labels", cache="cache")
    >>> run.best.exists(), data.damaged
    (True, ())
    """
    folder = RunFolder(Path(path))
    recipe = _settle(recipe, folder, resume)
    check_folder(folder, recipe, resume, force)
    warn_of_slow_precision(recipe.training)
    limit_threads()
    start = None if start_from is None else read_start(start_from, recipe.training)
    data = prepare_views(recipe, views, Path(cache or default_cache()), on_read)
    if resume and folder.last.exists():
        _check_progress(folder, recipe, data)
    if not resume and folder.path.exists():
        _clear(folder)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts = PretrainFacts(
        images=len(data.frames),
        unreadable=len(data.damaged),
        data=data.digest,
        provenance=provenance(data.digest, device)
        | {"precision": recipe.precision, "threads": str(torch.get_num_threads())},
    )
    if start is not None:
        write_atomic(folder.start, start)
    write_atomic(folder.recipe, to_json(recipe))
    write_atomic(folder.provenance, to_json(facts))
    fit_pretrain(recipe, data, folder, on_epoch, on_step)
    return folder, data


def fit_pretrain(
    recipe: PretrainRecipe,
    data: PretrainData,
    folder: RunFolder,
    on_epoch: OnEpoch | None = None,
    on_step: ProgressCallback | None = None,
) -> None:
    """Trains until the recipe's last epoch, from the folder's last checkpoint if it has one.

    A new run begins with the folder's start, or with random weights. After every epoch the folder
    holds the whole state, so that a run that was killed goes on to the same weights.
    """
    run = _Run(recipe, data, folder.start if folder.start.exists() else None)
    done = run.restore(folder) if folder.last.exists() else Progress(recipe.digest(), data.digest)
    records = folder.read_metrics()[: done.epochs_done]
    for epoch in range(done.epochs_done, recipe.epochs):
        started = time.perf_counter()
        trained = run.train_epoch(epoch, on_step)
        seconds = time.perf_counter() - started
        record = record_of(run.shared, epoch, trained, (None, None), seconds, len(run.loader))
        records.append(record)
        done = replace(done, epochs_done=record.epoch)
        run.save_weights(folder.best)
        folder.write_metrics(records)
        write_events(folder.events, record)
        run.save(folder.last, done)
        if on_epoch is not None:
            on_epoch(record)
    write_atomic(folder.curves, draw_curves(records, folder.path.name))


class _Run:
    """The moving parts of a run: accelerator, loader, network with its head, optimiser."""

    def __init__(self, recipe: PretrainRecipe, data: PretrainData, start: Path | None) -> None:
        self.recipe, self.data = recipe, data
        self.shared, self.policy = settle_precision(recipe.training), POLICIES[recipe.augmentation]
        self.accelerator = make_accelerator(self.shared)
        if self.accelerator.num_processes > 1:
            raise TrainingError(
                "pretrain runs in one process, since the images of a batch are told from each "
                "other; start it without a launcher"
            )
        torch.manual_seed(recipe.seed)
        network = network_of(self.shared, SOME_CLASSES)
        if start is not None:
            load_start(network, start)
        learner = METHODS[recipe.method](network, recipe)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = learner.to(self.accelerator.device)
        self.raw_optimizer = build_optimizer(self.learner, self.shared)
        place = place_of(data.frames.nbytes, self.accelerator.device)
        frames = CellDataset(data.frames, [0] * len(data.frames), place)
        loader = train_loader(frames, recipe.batch_size, recipe.seed)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            self.learner, self.raw_optimizer, loader
        )

    def train_epoch(self, epoch: int, on_step: ProgressCallback | None) -> tuple[float, float]:
        """One pass over the images: mean loss, and how often the own other view is the likest."""
        recipe, steps = self.recipe, len(self.loader)
        torch.manual_seed(recipe.seed * 100_003 + epoch)  # of all that is random in the epoch
        self.loader.set_epoch(epoch)
        self.model.train()
        totals = torch.zeros(2, device=self.accelerator.device)
        for step, (frames, _) in enumerate(self.loader):
            set_learning_rate(self.raw_optimizer, learning_rate(self.shared, epoch + step / steps))
            totals += self._step(
                *(
                    augment(frames, recipe.image_size, self.data.inner, self.policy)
                    for _ in range(2)
                )
            )
            if step % 16 == 15 or step + 1 == steps:  # not every step: it waits for the GPU
                if not math.isfinite(totals[0].item()):
                    raise TrainingError(
                        f"the loss is no longer a number (in epoch {epoch + 1}); the checkpoint "
                        "before is kept. Lower the learning rate, or use another precision"
                    )
                if on_step is not None:
                    on_step(epoch * steps + step + 1, recipe.epochs * steps)
        loss, accuracy = (totals / steps).tolist()
        return loss, accuracy

    def _step(self, first: Tensor, second: Tensor) -> Tensor:
        """One step of the optimiser; the batch's loss, and the share of likest own views."""
        with self.accelerator.autocast():
            logits, targets = self.model(first, second)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        self.accelerator.backward(loss)
        if self.recipe.clip_norm > 0:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        right = (logits.detach().argmax(1) == targets).float().mean()
        return torch.stack([loss.detach(), right])

    def restore(self, folder: RunFolder) -> Progress:
        """Continues from a folder's last checkpoint."""
        progress = _check_progress(folder, self.recipe, self.data)
        load_checkpoint(folder.last, self.learner, self.raw_optimizer, None)
        if self.accelerator.scaler is not None and progress.loss_scale is not None:
            state = self.accelerator.scaler.state_dict()
            self.accelerator.scaler.load_state_dict(state | {"scale": progress.loss_scale})
        return progress

    def save(self, path: Path, progress: Progress) -> None:
        """Writes a checkpoint."""
        scaler = self.accelerator.scaler
        scale = None if scaler is None else scaler.get_scale()
        progress = replace(progress, loss_scale=scale)
        save_checkpoint(path, progress, self.learner, self.raw_optimizer, None)

    def save_weights(self, path: Path) -> None:
        """The network's weights, without the projection head and without a last layer."""
        network = self.learner.query.network
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary)


def check_folder(folder: RunFolder, recipe: PretrainRecipe, resume: bool, force: bool) -> None:
    """Raises TrainingError for a folder in which this run cannot be; removes torn files there."""
    if not folder.path.exists():
        return
    if not folder.recipe.exists():
        if any(entry != folder.start and not is_torn(entry) for entry in folder.path.iterdir()):
            raise TrainingError(f"{folder.path}: not empty and not a run; take another folder")
    else:
        found = read_pretrain_recipe(folder.recipe)  # never replaces a run with labels
        if not resume and not force:
            raise TrainingError(
                f"{folder.path}: holds a run; use --resume to go on with it, or --force to "
                "replace it"
            )
        if resume and found != recipe:
            raise TrainingError(
                f"{folder.path}: its recipe.json is another recipe; take another folder, or go on "
                "with the recipe that it was started with"
            )
    remove_torn_below(folder.path)


def _settle(recipe: PretrainRecipe, folder: RunFolder, resume: bool) -> PretrainRecipe:
    """The recipe with a precision: that which a begun run has, or what is fast here."""
    if resume and recipe.precision == "auto" and folder.recipe.exists():
        return replace(recipe, precision=read_pretrain_recipe(folder.recipe).precision)
    return replace(recipe, precision=settle_precision(recipe.training).precision)


def _check_progress(folder: RunFolder, recipe: PretrainRecipe, data: PretrainData) -> Progress:
    """How far the folder's run has come. Raises TrainingError for another run's checkpoint."""
    progress, _ = read_checkpoint(folder.last)
    if (progress.recipe, progress.data) != (recipe.digest(), data.digest):
        raise TrainingError(
            f"{folder.path}: the checkpoint is of another recipe, or of other images; take another "
            "folder"
        )
    return progress


def _clear(folder: RunFolder) -> None:
    """Removes a run that is to be replaced: its own files, and nothing else."""
    for path in (
        *(folder.start, folder.recipe, folder.provenance, folder.metrics, folder.curves),
        *(folder.last, folder.best),
    ):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder.events, ignore_errors=True)
