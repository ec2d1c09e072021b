"""fit(recipe, …): trains one network and leaves a run folder. Read it from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hemascope.arrays import ProgressCallback
from hemascope.data.attributes import UNKNOWN
from hemascope.data.augment import POLICIES, augment, mix_up, to_images
from hemascope.data.dataset import Batch
from hemascope.errors import TrainingError
from hemascope.files import atomic_path
from hemascope.models import create_model
from hemascope.models.network import CellNetwork
from hemascope.training.allocator import peak_memory
from hemascope.training.auxiliary import WithAuxiliary, auxiliary_loss, save_auxiliary
from hemascope.training.checkpoint import (
    Progress,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from hemascope.training.cuda_graph import GraphedStep, Step
from hemascope.training.events import write_events
from hemascope.training.folder import EpochRecord, RunFolder, best_record
from hemascope.training.images import TrainingData
from hemascope.training.machine import make_accelerator, settle_precision
from hemascope.training.optim import (
    WeightAverage,
    build_optimizer,
    learning_rate,
    set_learning_rate,
)
from hemascope.training.recipe import Recipe

OnEpoch = Callable[[EpochRecord], None]


def fit(
    recipe: Recipe,
    data: TrainingData,
    folder: RunFolder,
    on_epoch: OnEpoch | None = None,
    on_step: ProgressCallback | None = None,
    start: Path | None = None,
    teachers: Sequence[nn.Module] = (),
) -> Progress:
    """Trains until the recipe's last epoch, from the folder's last checkpoint if it has one.

    A new run begins with the weights in `start`, or with random ones. Of the `teachers`' mean
    logits of each augmented image comes a part of its target (`teacher_weight`).

    After every epoch the folder holds the whole state, so a run that was killed goes on from its
    last full epoch to the same weights that it would have reached. Raises TrainingError where the
    loss is no longer a number; the last good checkpoint stays.
    """
    run = Run(recipe, data, start, teachers)
    recipe = run.recipe
    done = run.restore(folder) if folder.last.exists() else Progress(recipe.digest(), data.digest)
    records = folder.read_metrics()[: done.epochs_done]
    for epoch in range(done.epochs_done, recipe.epochs):
        started = time.perf_counter()
        trained = run.train_epoch(epoch, on_step)
        seconds = time.perf_counter() - started
        record = record_of(recipe, epoch, trained, run.validate(), seconds, len(run.train_loader))
        records.append(record)
        done = replace(done, epochs_done=record.epoch)
        if run.accelerator.is_main_process:
            run.save_epoch(folder, records, done)
        run.accelerator.wait_for_everyone()
        if on_epoch is not None and run.accelerator.is_main_process:
            on_epoch(record)
    return done


def record_of(
    recipe: Recipe,
    epoch: int,
    trained: tuple[float, float],
    validated: tuple[float | None, float | None],
    seconds: float,
    steps: int,
) -> EpochRecord:
    """The record of an epoch of so many steps: loss and accuracy in training and in validation."""
    return EpochRecord(
        epoch=epoch + 1,
        image_size=recipe.size_at(epoch),
        learning_rate=learning_rate(recipe, epoch),
        train_loss=trained[0],
        train_accuracy=trained[1],
        val_loss=validated[0],
        val_accuracy=validated[1],
        seconds=seconds,
        images_per_second=steps * recipe.batch_size / seconds,
        memory_mb=peak_memory() / 1e6,
    )


class Run:
    """The moving parts of a run: accelerator, loaders, model, optimiser, average."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        start: Path | None = None,
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        recipe = settle_precision(recipe)
        self.recipe, self.data, self.policy = recipe, data, POLICIES[recipe.augmentation]
        self.accelerator = make_accelerator(recipe)
        torch.manual_seed(recipe.seed)
        network = network_of(recipe, len(data.classes))
        if start is not None:
            load_start(network, start)
        network.freeze(recipe.frozen_layers, recipe.frozen_statistics, recipe.frozen_depthwise)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module = network.to(self.accelerator.device)
        self.auxiliary = data.auxiliary if recipe.auxiliary_weight > 0 else None
        self.learner = self._with_auxiliary(network).to(self.accelerator.device)
        self.targets = target_table(len(data.classes), recipe.label_smoothing)
        self.targets = self.targets.to(self.accelerator.device)
        self.teachers = [teacher.eval().to(self.accelerator.device) for teacher in teachers]
        self.eval_model: nn.Module = self.learner  # what is validated and kept
        self.average: WeightAverage | None = None
        if recipe.ema_decay > 0:
            self.average = WeightAverage(self.learner, recipe.ema_decay)
            eval_model = self._with_auxiliary(network_of(recipe, len(data.classes)))
            self.eval_model = eval_model.to(self.accelerator.device)
        graphed = _can_be_graphed(recipe, self.accelerator)
        self.raw_optimizer = build_optimizer(self.learner, recipe, capturable=graphed)
        self.step: Step = GraphedStep(self._step) if graphed else self._step
        train_loader, val_loader = data.loaders(recipe, self.accelerator.device)
        self.model, self.optimizer, self.train_loader = self.accelerator.prepare(
            self.learner, self.raw_optimizer, train_loader
        )
        if recipe.compile:
            self.learner.compile(dynamic=False)
        self.val_loader: DataLoader[Batch] | None = (
            None if val_loader is None else self.accelerator.prepare(val_loader)
        )

    def _with_auxiliary(self, network: CellNetwork) -> CellNetwork | WithAuxiliary:
        """The network, with a layer for what else is learnt."""
        return network if self.auxiliary is None else WithAuxiliary(network, self.auxiliary.sizes)

    def train_epoch(self, epoch: int, on_step: ProgressCallback | None) -> tuple[float, float]:
        """One pass over the training images: mean loss and accuracy."""
        recipe, accelerator = self.recipe, self.accelerator
        size, steps = recipe.size_at(epoch), len(self.train_loader)
        # All randomness of an epoch follows from here, so that a resumed run repeats it.
        torch.manual_seed((recipe.seed * 100_003 + epoch) * 1_009 + accelerator.process_index)
        self.train_loader.set_epoch(epoch)
        self.model.train()
        totals = torch.zeros(3, device=accelerator.device)  # loss, correct, images
        for step, (frames, targets) in enumerate(self.train_loader):
            set_learning_rate(self.raw_optimizer, learning_rate(recipe, epoch + step / steps))
            images = augment(frames, size, self.data.inner, self.policy)
            totals += self.step(*self._with_targets(images, targets))
            if self.average is not None:
                self.average.update()
            if step % 16 == 15 or step + 1 == steps:  # not every step: it waits for the GPU
                self._check(totals, epoch)
                if on_step is not None and accelerator.is_main_process:
                    on_step(epoch * steps + step + 1, recipe.epochs * steps)
        loss, correct, images_seen = accelerator.reduce(totals).tolist()
        return loss / images_seen, correct / images_seen

    def _with_targets(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (N,3,S,S), what they are to be named, (N,C), and auxiliary targets (N,K).

        `known` is a batch's class indices (N,), or these and the auxiliary targets (N,1+K).
        """
        known = known.view(len(known), -1)
        recipe, targets, auxiliary = self.recipe, self.targets[known[:, 0]], known[:, 1:]
        if self.teachers and recipe.teacher_weight > 0:
            with torch.no_grad(), self.accelerator.autocast():
                answers = [teacher(images).float() for teacher in self.teachers]
            taught = torch.stack(answers).mean(0).softmax(1)
            targets = torch.lerp(targets, taught, recipe.teacher_weight)
        if recipe.mixup > 0 and torch.rand(()) < recipe.mixup:
            images, targets = mix_up(images, targets)
            images = images.contiguous(memory_format=torch.channels_last)
            auxiliary = torch.full_like(auxiliary, UNKNOWN)  # a mixture has no one value
        return images, targets, auxiliary

    def _step(self, images: Tensor, targets: Tensor, auxiliary: Tensor) -> Tensor:
        """One step of the optimiser; the batch's summed loss, correct answers and size."""
        with self.accelerator.autocast():
            outputs = self.model(images).float()
        logits, others = outputs.split([targets.shape[1], outputs.shape[1] - targets.shape[1]], 1)
        loss = nn.functional.cross_entropy(logits, targets)
        if self.auxiliary is not None:
            total, number = auxiliary_loss(others, auxiliary, self.auxiliary.sizes)
            processes = self.accelerator.num_processes
            if processes > 1:  # the mean is over what all of them know
                number = self.accelerator.reduce(number)
            loss = loss + self.recipe.auxiliary_weight * processes * total / number.clamp(min=1)
        self.accelerator.backward(loss)
        if self.recipe.clip_norm > 0:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        n = torch.full_like(loss.detach(), len(targets))
        of_a_class = targets.amax(1) > targets.amin(1)
        correct = ((logits.detach().argmax(1) == targets.argmax(1)) & of_a_class).sum().float()
        return torch.stack([loss.detach() * n, correct, n])

    def _check(self, totals: Tensor, epoch: int) -> None:
        if not math.isfinite(totals[0].item()):
            raise TrainingError(
                f"the loss is no longer a number (in epoch {epoch + 1}); the checkpoint before "
                "is kept. Lower the learning rate, or use another precision"
            )

    @torch.inference_mode()
    def validate(self) -> tuple[float | None, float | None]:
        """Mean cross-entropy and accuracy on the validation images, or None without any."""
        if self.average is not None:
            self.eval_model.load_state_dict(self.average.state)
        if self.val_loader is None:
            return None, None
        self.eval_model.eval()
        loss = correct = count = 0.0
        for frames, targets in self.val_loader:
            with self.accelerator.autocast():
                outputs = self.eval_model(to_images(frames)).float()
            logits = outputs[:, : len(self.data.classes)]
            logits, targets = self.accelerator.gather_for_metrics((logits, targets))
            loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            correct += (logits.argmax(1) == targets).sum().item()
            count += len(targets)
        return loss / count, correct / count

    def restore(self, folder: RunFolder) -> Progress:
        """Continues from a folder's last checkpoint. Raises TrainingError for another run's."""
        progress, _ = read_checkpoint(folder.last)
        if (progress.recipe, progress.data) != (self.recipe.digest(), self.data.digest):
            raise TrainingError(
                f"{folder.path}: the checkpoint is of another recipe, or of other images, subtypes "
                "or attributes; take another folder"
            )
        load_checkpoint(folder.last, self.learner, self.raw_optimizer, self.average)
        if self.accelerator.scaler is not None and progress.loss_scale is not None:
            state = self.accelerator.scaler.state_dict()
            self.accelerator.scaler.load_state_dict(state | {"scale": progress.loss_scale})
        return progress

    def save_epoch(self, folder: RunFolder, records: Sequence[EpochRecord], done: Progress) -> None:
        """Writes what is kept of the last epoch: its weights if they are the best, and its state.

        The state comes last: an epoch is done when all the rest of it is written.
        """
        if best_record(records) is records[-1]:
            self.save_weights(folder.best)
            self.save_auxiliary(folder.auxiliary)
        cycle = self.recipe.cycle_ending(records[-1].epoch - 1)
        if self.recipe.cycles > 1 and cycle is not None:
            self.save_weights(folder.snapshot(cycle))
        folder.write_metrics(records)
        write_events(folder.events, records[-1])
        self.save(folder.last, done)

    def save(self, path: Path, progress: Progress) -> None:
        """Writes a checkpoint."""
        scaler, average = self.accelerator.scaler, self.average
        progress = replace(
            progress,
            average_steps=average.steps if average is not None else 0,
            loss_scale=scaler.get_scale() if scaler is not None else None,
        )
        save_checkpoint(path, progress, self.learner, self.raw_optimizer, average)

    def save_weights(self, path: Path) -> None:
        """The weights that are judged: the average's, if one is kept."""
        kept = self.eval_model
        network = kept.network if isinstance(kept, WithAuxiliary) else kept
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary)

    def save_auxiliary(self, path: Path) -> None:
        """The layer beside those weights that tells what else is learnt, if anything is."""
        if self.auxiliary is not None and isinstance(self.eval_model, WithAuxiliary):
            save_auxiliary(path, self.eval_model, self.auxiliary.columns)


def network_of(recipe: Recipe, num_classes: int) -> CellNetwork:
    """The recipe's network, freshly initialised."""
    return create_model(
        recipe.model,
        num_classes,
        squeeze_excite=recipe.squeeze_excite,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
        normalise_stain=recipe.normalise_stain,
        normalise_light=recipe.normalise_light,
        input_upscale=recipe.input_upscale,
        mixstyle=recipe.mixstyle,
    )


def target_table(num_classes: int, label_smoothing: float) -> Tensor:
    """Target probabilities (C+1,C) by class index; the last row, also -1, is of no class."""
    table = torch.eye(num_classes) * (1 - label_smoothing) + label_smoothing / num_classes
    return torch.cat([table, torch.full((1, num_classes), 1 / num_classes)])


def load_start(network: CellNetwork, path: Path) -> None:
    """Gives a network the weights of a trained one.

    A last layer for other classes stays fresh, and so do layers that the trained one has not.
    Raises TrainingError for the weights of another architecture.
    """
    own = network.state_dict()
    state = own | load_file(path)
    head = {name: own[name] for name in ("head.weight", "head.bias")}
    if any(state[name].shape != fresh.shape for name, fresh in head.items()):
        state |= head
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise TrainingError(
            f"{path}: these weights are of another architecture than the recipe's"
        ) from None


def _can_be_graphed(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Whether a step waits for nothing: one GPU, and no loss scale or compiler that looks back."""
    return (
        accelerator.device.type == "cuda"
        and accelerator.num_processes == 1
        and recipe.optimizer != "sgd"
        and recipe.precision != "fp16"
        and not recipe.compile
    )
