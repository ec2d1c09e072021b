"""The fields of samples in shards of 50: a shard is named as a whole, and appears as one file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from hemascope.arrays import ProgressCallback
from hemascope.batch.shards import shard_file
from hemascope.files import atomic_path
from hemascope.inference.classifier import Classifier
from hemascope.serialization import from_json
from hemascope.smear.counted import NamedField
from hemascope.smear.naming import FieldLocator, Probe, name_fields, probe_sample
from hemascope.smear.samples import Sample

FIELDS_PER_SHARD = 50
LINES = ".jsonl"


@dataclass(frozen=True)
class FieldShards:
    """The fields of samples, in order, in a folder with a file for each `size` of them.

    A shard may hold fields of several samples, and a sample may have several shards.
    """

    folder: Path
    samples: tuple[Sample, ...]
    size: int

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """The name of the sample and the path of each field."""
        return [(sample.name, path) for sample in self.samples for path in sample.paths]

    @property
    def numbers(self) -> range:
        """The numbers of all shards."""
        return range(-(-len(self.fields) // self.size))

    def fields_of(self, number: int) -> list[tuple[str, str]]:
        """The fields of one shard."""
        return self.fields[number * self.size : (number + 1) * self.size]

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / shard_file(number, LINES)

    def read(self, sample: Sample) -> Iterator[NamedField]:
        """The named fields of one sample, in order, read one by one."""
        start = self._starts[sample.name]
        stop = start + len(sample.paths)
        for number in range(start // self.size, -(-stop // self.size)):
            first = number * self.size
            with self.path(number).open("rb") as lines:
                chosen = itertools.islice(lines, max(0, start - first), max(0, stop - first))
                for line in chosen:
                    yield from_json(line, NamedField)

    @cached_property
    def _starts(self) -> dict[str, int]:
        """How many fields are before those of each sample."""
        ends = itertools.accumulate((len(sample.paths) for sample in self.samples), initial=0)
        return {sample.name: start for sample, start in zip(self.samples, ends, strict=False)}


@dataclass(frozen=True)
class FieldNetworks:
    """What names fields; `um_per_pixel` is the scale that was given, None to ask the red cells."""

    locator: FieldLocator
    classifier: Classifier
    um_per_pixel: float | None


class ShardNamer:
    """Names one shard after the other; the samples of the last one need no second look."""

    def __init__(self, shards: FieldShards, networks: FieldNetworks) -> None:
        self.shards, self.networks = shards, networks
        self._by_name = {sample.name: sample for sample in shards.samples}
        self._probes: dict[str, Probe] = {}

    def write(self, number: int, on_field: Callable[[int], None] | None = None) -> None:
        """Writes a shard; `on_field` is called with the number of fields that are in it so far."""
        fields, used = self.shards.fields_of(number), self.networks
        named = name_fields(fields, self._probe(fields), used.locator, used.classifier)
        with atomic_path(self.shards.path(number)) as temporary, temporary.open("wb") as lines:
            for done, found in enumerate(named, start=1):
                lines.write(msgspec.json.encode(found) + b"\n")
                if on_field is not None:
                    on_field(done)

    def _probe(self, fields: list[tuple[str, str]]) -> dict[str, Probe]:
        """A probe of each sample that these fields are of."""
        used, known = self.networks, self._probes
        self._probes = {
            name: known[name]
            if name in known
            else probe_sample(self._by_name[name], used.locator, used.um_per_pixel)
            for name in dict.fromkeys(sample for sample, _ in fields)
        }
        return self._probes


NameShards = Callable[[FieldShards, FieldNetworks, list[int], ProgressCallback | None], None]
"""Writes the shards of these numbers, which are missing."""


def name_here(
    shards: FieldShards,
    networks: FieldNetworks,
    missing: list[int],
    progress: ProgressCallback | None = None,
) -> None:
    """Writes the missing shards in this process, in order."""
    namer, total = ShardNamer(shards, networks), len(shards.fields)
    for number in missing:
        start = number * shards.size

        def on_field(done: int, start: int = start) -> None:
            if progress is not None:
                progress(start + done, total)

        namer.write(number, on_field)
