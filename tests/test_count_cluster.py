"""Counting on Ray: the same tables as one process writes, killed workers, and runs that go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from PIL import Image

from drawn_smears import KnownLocator, draw_sample
from hemascope import Classifier
from hemascope.batch import pool
from hemascope.batch.ray_session import ray_session
from hemascope.batch.shards import JOB_FILE
from hemascope.cli import app
from hemascope.serialization import from_json
from hemascope.smear import cluster, run
from hemascope.smear.cluster import name_on_cluster
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import CountOptions
from hemascope.smear.field_shards import ShardNamer
from hemascope.smear.locate import Locator
from hemascope.smear.run import count_to
from hemascope.smear.samples import Sample, find_samples

pytestmark = pytest.mark.slow

SHARD, FIELDS = 2, 9  # with the damaged field and the white page
SHARDS = -(-FIELDS // SHARD)


class StoppedError(Exception):
    """What a test stops a run with."""


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[None]:
    """A Ray cluster of two processors for all tests here."""
    with ray_session(workers=2):
        yield
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples whose shards overlap, one with a damaged field; and one that has no cell."""
    folder = tmp_path_factory.mktemp("smears")
    known = KnownLocator()  # whom nobody asks
    draw_sample(folder / "one", known, 3)
    draw_sample(folder / "two", known, 4, seed=3)
    (folder / "two" / "damaged.png").write_bytes(b"no image")
    (folder / "white").mkdir()
    Image.new("RGB", (300, 300), "white").save(folder / "white" / "page.png")
    return folder


@pytest.fixture
def samples(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Sample, ...]:
    """The samples, with paths that start from the present folder, in shards of two fields."""
    monkeypatch.chdir(drawn)
    monkeypatch.setattr(run, "FIELDS_PER_SHARD", SHARD)
    found = find_samples(["one", "two", "white"])
    assert found.fields == FIELDS
    return found.samples


@pytest.fixture(scope="module")
def networks() -> tuple[Locator, Classifier]:
    """The networks that come with the package."""
    return Locator.from_bundle(threads=1), Classifier(threads=1)


def count(
    out: Path,
    samples: tuple[Sample, ...],
    networks: tuple[Locator, Classifier],
    **settings: Any,
) -> list[DifferentialCount]:
    """Counts into a table, with another one of the cells beside it."""
    locator, classifier = networks
    options = CountOptions(locator_sha256=locator.card.model_sha256)
    cells = out.with_name(f"cells_{out.name}")
    return count_to(out, samples, locator, classifier, options, cells=cells, **settings)


def undated(made: DifferentialCount) -> DifferentialCount:
    """A count without the time at which it was made."""
    return replace(made, provenance=made.provenance | {"created": ""})


def assert_same(one: Path, other: Path) -> None:
    """The tables of counts and of cells are the same byte for byte, and nothing else is left."""
    for path in (one, other):
        assert not path.with_name(f".{path.name}.fields").exists()
    assert one.read_bytes() == other.read_bytes()
    cells = [path.with_name(f"cells_{path.name}").read_bytes() for path in (one, other)]
    assert cells[0] == cells[1]
    assert cells[0].count(b"\n") > 100


def test_a_killed_worker_costs_nothing_and_the_tables_are_those_of_one_process(
    samples: tuple[Sample, ...],
    networks: tuple[Locator, Classifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    class KilledNamer(ShardNamer):
        """Kills its process in the middle of the second shard, the first time."""

        def write(self, number: int, on_field: Any = None) -> None:
            (marks / f"{number}-{os.getpid()}").touch()

            def stop(done: int) -> None:
                if number == 1 and len(list(marks.glob("1-*"))) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            super().write(number, stop)

    class Killed(cluster.FieldWorker):
        def __init__(self, settings: cluster.FieldSettings) -> None:
            super().__init__(settings)
            self.namer = KilledNamer(self.shards, self.namer.networks)

    expected = count(tmp_path / "here.csv", samples, networks)
    monkeypatch.setattr(cluster, "FieldWorker", Killed)
    seen: list[tuple[int, int]] = []
    found = count(
        tmp_path / "there.csv",
        samples,
        networks,
        name_shards=name_on_cluster,
        progress=lambda *given: seen.append(given),
    )
    assert [undated(made) for made in found] == [undated(made) for made in expected]
    assert [made.status == "ok" for made in found] == [True, True, False]
    assert found[1].unreadable == ("two/damaged.png: not an image in a known format",)
    assert_same(tmp_path / "here.csv", tmp_path / "there.csv")
    begun = [path.name.split("-") for path in marks.iterdir()]
    assert len({pid for shard, pid in begun if shard == "1"}) == 2
    assert len(begun) == SHARDS + 1  # no other shard was begun twice
    assert len(seen) == SHARDS
    assert seen[-1] == (FIELDS, FIELDS)


def test_fields_that_kill_every_worker_end_the_run(
    samples: tuple[Sample, ...],
    networks: tuple[Locator, Classifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Poisoned(cluster.FieldWorker):
        def write(self, number: int) -> int:
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write(number)

    monkeypatch.setattr(cluster, "FieldWorker", Poisoned)
    monkeypatch.setattr(pool, "RETRIES", 0)
    with pytest.raises(ValueError, match=r"000001.jsonl: 1 workers died while.*one/.*png"):
        count(tmp_path / "c.csv", samples, networks, name_shards=name_on_cluster)
    assert not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize("begun_on_cluster", [True, False])
def test_a_stopped_run_goes_on_here_and_on_a_cluster(
    samples: tuple[Sample, ...],
    networks: tuple[Locator, Classifier],
    tmp_path: Path,
    begun_on_cluster: bool,
) -> None:
    def stop(done: int, _: int) -> None:
        if done >= SHARD + 1:
            raise StoppedError

    here, there = {}, {"name_shards": name_on_cluster}
    first, second = (there, here) if begun_on_cluster else (here, there)
    out = tmp_path / "c.csv"
    with pytest.raises(StoppedError):
        count(out, samples, networks, progress=stop, **first)
    folder = tmp_path / ".c.csv.fields"
    done = {path.name: path.stat().st_ino for path in folder.glob("part*")}
    assert (folder / JOB_FILE).exists()
    assert done
    with pytest.raises(ValueError, match="--resume goes on with it"):
        count(out, samples, networks, **second)
    with pytest.raises(ValueError, match="begun with other images"):
        count(out, samples[:2], networks, resume=True, **second)
    kept: list[dict[str, int]] = []

    def see(made: DifferentialCount, _: object) -> None:
        kept.append({path.name: path.stat().st_ino for path in folder.glob("part*")})

    count(out, samples, networks, resume=True, on_count=see, **second)
    assert kept[0].items() >= done.items()  # what was done is not done again
    assert len(kept[0]) == SHARDS
    count(tmp_path / "whole.csv", samples, networks)
    assert_same(out, tmp_path / "whole.csv")


def test_the_command_counts_on_the_cluster(
    samples: tuple[Sample, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(name: str, *words: str) -> tuple[bytes, list[DifferentialCount]]:
        out = tmp_path / f"{name}.jsonl"
        files = ["--out", str(out), "--json", str(tmp_path / f"{name}.json")]
        given = ["count", "one", "two", *files, *words]
        assert app(given, result_action="return_value", exit_on_error=False) == 0
        records = [tmp_path / f"{name}-{sample}.json" for sample in ("one", "two")]
        made = [from_json(path.read_bytes(), DifferentialCount) for path in records]
        return out.read_bytes(), [undated(each) for each in made]

    assert call("here") == call("there", "--cluster", "--workers", "2")
    assert "2 of 2 samples counted, 8 fields" in capsys.readouterr().out
