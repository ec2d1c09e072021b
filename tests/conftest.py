"""Fixtures that several test files use."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from hemascope.serve.store.database import Store

hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

# torch adds up in the same order each time on one thread only; subprocesses inherit this.
os.environ["OMP_NUM_THREADS"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors: each takes one
    os.cpu_count = lambda: 1
    os.sched_getaffinity = lambda _: {0}


def pytest_configure(config: pytest.Config) -> None:
    """The folder of drawn cells, which the workers inherit."""
    from drawn import SHARED

    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="hemascope-drawn-")


def pytest_unconfigure(config: pytest.Config) -> None:
    from drawn import SHARED

    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs real images; files with slow tests come first, so that workers end together.

    Which file goes to which worker is `--dist loadfile`'s to say.
    """
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images: HEMASCOPE_DATA, by default ../shared/data.

    Without it the test is skipped, but not in continuous integration, where it must be there.
    """
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HEMASCOPE_DATA", default))
    if not (folder / "pbc" / "splits.csv").exists():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} has no pbc/splits.csv; set HEMASCOPE_DATA")
        pytest.skip("no real images here; set HEMASCOPE_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def drawn_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawn cells per class, as `draw_folder` draws them; no test may change them."""
    from drawn import draw_folder

    folder = tmp_path_factory.mktemp("drawn") / "cells"
    draw_folder(folder, per_class=20)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of three classes and 64 pixels, whose network never learnt."""
    import torch

    from hemascope.bundle.bundle import write_bundle
    from hemascope.bundle.card import Card
    from hemascope.bundle.export import draw_sample, export
    from hemascope.classes import ClassSet
    from hemascope.models import create_model
    from hemascope.preprocess import InputSpec

    torch.manual_seed(0)
    spec = InputSpec(64)
    card = Card(
        name="tiny",
        classes=ClassSet.from_names(("basophil", "monocyte", "zebra")),
        input=spec,
        architecture="efficientnet_lite",
        parameters=1,
        model_sha256="",
        training_data="nothing",
    )
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    write_bundle(export(create_model("efficientnet_lite", 3), card, draw_sample(spec)), folder)
    return folder


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own, from Debian's package."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed; .ci/run installs it")
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")
    folder = Path("/tmp") / tmp_path_factory.mktemp("pg").name  # a socket's path must be short
    folder = folder.with_name(f"hemascope-{os.getpid()}-{time.time_ns()}")
    folder.mkdir()
    data = folder / "data"
    run_as: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        run_as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def call(*words: str) -> None:
        command = [*run_as, str(found[-1]), "-D", str(data), "-s", *words]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call("initdb", "-o", "--auth=trust --username=hemascope --encoding=UTF8 --no-sync")
    call("start", "-w", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
    try:
        yield f"postgresql://hemascope@/postgres?host={folder}"
    finally:
        call("stop", "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, cheap_passwords: None) -> Iterator[Store]:
    """An empty store."""
    from hemascope.serve.store.database import open_store

    address = None
    if request.param == "postgresql":
        address = request.getfixturevalue("postgresql")
        with closing(_connect(address)) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")  # type: ignore[attr-defined]
    found = open_store(tmp_path / "store", address)
    yield found
    found.close()


def _connect(address: str) -> object:
    import psycopg

    return psycopg.connect(address, autocommit=True)


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take little time and memory."""
    from argon2 import PasswordHasher

    from hemascope.serve.store import people

    monkeypatch.setattr(people, "HASHER", PasswordHasher(1, 8, 1))
