"""TensorBoard events of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from hemascope.training.folder import EpochRecord


def write_events(folder: Path, record: EpochRecord) -> None:
    """One epoch's figures. What a killed run had written past this epoch is purged."""
    with SummaryWriter(str(folder), purge_step=record.epoch) as writer:
        for name, value in asdict(record).items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, record.epoch)
