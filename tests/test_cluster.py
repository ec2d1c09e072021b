"""Classifying on Ray: killed workers and drivers, object stores, Parquet, manifests, refusals."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import ray
from pyarrow.fs import FileSystem

from hemascope import Classifier
from hemascope.batch import cluster, local, pool, storage
from hemascope.batch import ray_session as session
from hemascope.batch.cluster import classify_on_cluster
from hemascope.batch.cluster_inputs import Sources, find_sources
from hemascope.batch.inputs import find_images, find_inputs
from hemascope.batch.local import classify_to
from hemascope.batch.ray_session import ray_session
from hemascope.batch.shards import JOB_FILE
from hemascope.batch.storage import Folder, files_at, reason
from hemascope.cli import app
from hemascope.errors import ManifestError
from hemascope.predictions import Prediction
from hemascope.preprocess import View
from samples import noise_files

pytestmark = pytest.mark.slow

IMAGES, PART, DAMAGED = 42, 8, 20
# The command line with short parts, and slow enough to be killed at work.
SLOW = f"""
import time
from hemascope import cli
from hemascope.batch import cluster
class Slow(cluster.Worker):
    def counts(self, part):
        time.sleep(0.5)
        return super().counts(part)
cluster.SHARD_ROWS, cluster.Worker = {PART}, Slow
cli.main()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in small files, and one that is no image."""
    return noise_files(tmp_path_factory.mktemp("images"), IMAGES, DAMAGED)


@pytest.fixture(scope="module")
def bucket(images: Path) -> Iterator[str]:
    """The address of a bucket with the same images under in/, on an S3 server of this machine."""
    from moto.server import ThreadedMotoServer  # here, since it takes a second in each worker

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        system, _ = FileSystem.from_uri("s3://cells?allow_bucket_creation=true")
        system.create_dir("cells")
        folder = Folder("s3://cells/in")
        for path in sorted(images.iterdir()):
            folder.write(path.name, path.read_bytes())
        yield "s3://cells"
    server.stop()


@pytest.fixture(scope="module")
def two_workers(bucket: str) -> Iterator[None]:
    """A Ray cluster of two processors, which knows where the bucket is."""
    with ray_session(workers=2):
        yield
    assert not ray.is_initialized()


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SHARD_ROWS", PART)
    monkeypatch.setattr(local, "SHARD_ROWS", PART)


def rows(out: str | Path) -> list[dict[str, object]]:
    if isinstance(out, Path):
        return list(ds.dataset(out, format="parquet").to_table().to_pylist())
    content = [Folder(out).read(name) for name in Folder(out).names()]
    return [row for part in content for row in pq.read_table(io.BytesIO(part)).to_pylist()]


def alone(paths: list[str], bundle: Path, folder: Path) -> list[dict[str, object]]:
    """The rows that a single process writes."""
    classify_to(folder / "alone", Classifier(bundle), paths)
    return rows(folder / "alone")


def assert_same(
    found: list[dict[str, object]], expected: list[dict[str, object]], but: tuple[str, ...] = ()
) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name in one.keys() - set(but):
            if isinstance(other[name], float):
                assert one[name] == pytest.approx(other[name], abs=1e-6), name
            else:
                assert one[name] == other[name], name


def stop(done: int, total: int) -> None:
    raise KeyboardInterrupt


def classify(*words: object) -> object:
    return app([str(word) for word in ("classify", *words)], result_action="return_value")


@pytest.mark.usefixtures("two_workers")
def test_a_worker_that_is_killed_at_work_costs_nothing(
    images: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    class Killed(cluster.Worker):
        """Kills itself in the middle of the third part, the first time."""

        def predictions(self, part: cluster.Shard) -> Iterator[Prediction]:
            (marks / f"{part.number}-{os.getpid()}").touch()
            for index, prediction in enumerate(super().predictions(part)):
                if (part.number, index) == (2, 4) and len(list(marks.glob("2-*"))) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield prediction
            time.sleep(0.2)  # so that the other one gets its share

    monkeypatch.setattr(cluster, "Worker", Killed)
    seen: list[tuple[int, int]] = []
    tally = classify_on_cluster(
        str(tmp_path / "out"),
        tiny_bundle,
        find_sources([str(images)]),
        workers=2,
        progress=lambda *given: seen.append(given),
    )
    begun = [path.name.split("-") for path in marks.iterdir()]
    killed = {pid for part, pid in begun if part == "2"}
    assert len(killed) == 2  # both took part 2, one after the other
    assert len(begun) == 7  # and no other was taken twice
    assert_same(rows(tmp_path / "out"), alone(find_images([str(images)]), tiny_bundle, tmp_path))
    expected = classify_to(tmp_path / "p.csv", Classifier(tiny_bundle), find_images([str(images)]))
    assert tally == expected
    assert (tally.classified, tally.unreadable) == (IMAGES - 1, 1)
    assert seen[-1] == (IMAGES, IMAGES)
    assert sorted(seen) == seen
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"part{number:06d}.parquet" for number in range(6)]


@pytest.mark.usefixtures("two_workers")
def test_images_that_kill_every_worker_end_the_run(
    images: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poisoned(cluster.Worker):
        def predictions(self, part: cluster.Shard) -> Iterator[Prediction]:
            if part.number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().predictions(part)

    sources = find_sources([str(images)])
    monkeypatch.setattr(cluster, "Worker", Poisoned)
    monkeypatch.setattr(pool, "RETRIES", 0)
    with pytest.raises(ValueError, match=r"000001.parquet: 1 workers died while.*008.png"):
        classify_on_cluster(str(tmp_path / "out"), tiny_bundle, sources, workers=2)


def test_a_killed_run_goes_on_where_parts_are_missing(
    images: Path, tiny_bundle: Path, tmp_path: Path, two_workers: None
) -> None:
    out = tmp_path / "out"
    words = [images, "--bundle", tiny_bundle, "--out", out, "--cluster"]
    command = [sys.executable, "-c", SLOW, "classify", *map(str, words), "--workers", "2"]
    cluster_address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": cluster_address})
    try:
        while process.poll() is None and len(list(out.glob("part*"))) < 2:
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    done = {path.name: path.stat().st_ino for path in out.glob("part*")}
    assert 2 <= len(done) < 6
    with pytest.raises(ValueError, match="--resume goes on with it, --force starts over"):
        classify(*words)
    with pytest.raises(ValueError, match="was begun with other images, another model or other"):
        classify(*words, "--resume", "--tta")
    next(out.glob("part*")).unlink()  # parts may be missing anywhere
    kept = {path.name: path.stat().st_ino for path in out.glob("part*")}
    assert classify(*words, "--resume") == 0
    assert {name: (out / name).stat().st_ino for name in kept} == kept
    assert not (out / JOB_FILE).exists()
    assert_same(rows(out), alone(find_images([str(images)]), tiny_bundle, tmp_path))


def test_one_process_goes_on_with_what_a_cluster_began(
    images: Path, tiny_bundle: Path, tmp_path: Path, two_workers: None
) -> None:
    out, paths = tmp_path / "out", find_images([str(images)])
    with pytest.raises(KeyboardInterrupt):
        classify_on_cluster(str(out), tiny_bundle, Sources(paths, []), progress=stop)
    assert (out / JOB_FILE).exists()
    (out / "part000000.parquet").unlink(missing_ok=True)
    tally = classify_to(out, Classifier(tiny_bundle), paths, resume=True)
    assert (tally.classified, tally.unreadable) == (IMAGES - 1, 1)
    assert_same(rows(out), alone(paths, tiny_bundle, tmp_path))


def test_from_and_to_an_object_store(
    images: Path, tiny_bundle: Path, tmp_path: Path, bucket: str, two_workers: None
) -> None:
    out, words = f"{bucket}/out/table", ["--bundle", tiny_bundle, "--cluster", "--workers", "2"]
    with pytest.raises(KeyboardInterrupt):
        classify_on_cluster(out, tiny_bundle, find_sources([f"{bucket}/in"]), progress=stop)
    assert JOB_FILE in Folder(out).names()
    with pytest.raises(ValueError, match=f"{out}: was begun and stopped; --resume goes on"):
        classify(f"{bucket}/in", *words, "--out", out)
    assert classify(f"{bucket}/in", *words, "--out", out, "--resume") == 0
    expected = alone(find_images([str(images)]), tiny_bundle, tmp_path)
    found = rows(out)
    assert_same(found, expected, but=("path",))
    assert [row["path"] for row in found] == [f"{bucket}/in/{n:03d}.png" for n in range(IMAGES)]
    assert found[DAMAGED]["status"] == "not an image in a known format"
    assert len(Folder(out).names()) == 6  # and no _job.json
    with pytest.raises(ValueError, match=f"{out}: exists already; use --force to replace it"):
        classify(f"{bucket}/in", *words, "--out", out)

    one = f"{bucket}/in/001.png"
    gone = Sources([one, f"{bucket}/in/none.png", "s3://nowhere/none.png"], [])
    tally = classify_on_cluster(out, tiny_bundle, gone, force=True)
    assert (tally.classified, tally.unreadable) == (1, 2)
    assert [row["status"] for row in rows(out)] == ["ok", "no such file", "no such file"]
    assert_same(rows(out)[:1], expected[1:2], but=("path",))


@pytest.mark.parametrize("layout", ["path and bytes", "hugging face"])
def test_parquet_with_the_images_in_it(
    images: Path, tiny_bundle: Path, tmp_path: Path, bucket: str, two_workers: None, layout: str
) -> None:
    paths = sorted(images.iterdir())
    values = [{"path": path.name, "bytes": path.read_bytes()} for path in paths]
    values[3]["bytes"] = None
    values[4]["path"] = None
    if layout == "hugging face":
        parquet = pa.table({"image": values, "label": [0] * IMAGES})
        index = f"{bucket}/tables"
        buffer = io.BytesIO()
        pq.write_table(parquet, buffer, row_group_size=3)
        Folder(index).write("a.parquet", buffer.getvalue())
    else:
        index = str(tmp_path / "tables")
        os.mkdir(index)
        pq.write_table(pa.Table.from_pylist(values), f"{index}/a.parquet", row_group_size=3)
    assert find_sources([index]) == Sources([], [f"{index}/a.parquet"])
    out = tmp_path / "out"
    assert classify(index, "--bundle", tiny_bundle, "--cluster", "--out", out) == 0
    found, expected = rows(out), alone([str(path) for path in paths], tiny_bundle, tmp_path)
    assert [row["path"] for row in found[:6]] == [
        *("000.png", "001.png", "002.png", "003.png", f"{index}/a.parquet#4", "005.png")
    ]
    assert found[3]["status"] == "empty file"
    assert_same(found[:3] + found[4:], expected[:3] + expected[4:], but=("path",))
    assert len(list(out.iterdir())) == IMAGES / 6  # two row groups of three make a part of eight


def test_a_manifest_names_its_images(
    images: Path, tiny_bundle: Path, tmp_path: Path, bucket: str
) -> None:
    manifest = images.parent / "manifest.csv"
    names = ["005.png", "001.png"]
    lines = [f"{images.name}/{name},monocyte" for name in names]
    manifest.write_text("\n".join(["path,label", *lines]))
    paths = [str(images / name) for name in names]
    assert find_images([str(manifest)]) == paths
    assert find_sources([str(manifest)]) == Sources(paths, [])
    Folder(bucket).write("list.csv", manifest.read_bytes().replace(images.name.encode(), b"in"))
    addresses = [f"{bucket}/in/{name}" for name in names]
    assert find_sources([f"{bucket}/list.csv"]) == Sources(addresses, [])
    out = tmp_path / "p.csv"
    assert classify(manifest, "--bundle", tiny_bundle, "--out", out) == 0
    with out.open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == paths


def test_sources_are_in_order_and_without_hidden_files(images: Path, bucket: str) -> None:
    for name in ("b/2.JPG", "b/1.tif", "a.png", "b/.hidden.png", ".trash/3.png", "notes.txt"):
        Folder(f"{bucket}/mixed").write(name, b"")
    expected = [f"{bucket}/mixed/{name}" for name in ("a.png", "b/1.tif", "b/2.JPG")]
    assert find_sources([f"{bucket}/mixed/"]).images == expected
    taken = [f"{bucket}/mixed/notes.txt", str(images / "001.png")]
    assert find_sources(taken) == Sources(taken, [])


def test_other_stores_go_through_fsspec() -> None:
    Folder("memory://cells/in").write("1.png", b"one")
    assert files_at("memory://cells") == ["memory://cells/in/1.png"]
    assert Folder("memory://cells/in").read("1.png") == b"one"
    assert Folder("memory://cells/in").names() == ["1.png"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--out", "{tmp}/p.csv", "--cluster"], "a name without a suffix"),
        (["--report", "{tmp}/p.html", "--cluster"], "leave --report out"),
        (["--workers", "2"], "--workers is a number of processes for --cluster"),
        (["--workers", "0", "--cluster"], "--workers must be at least 1, not 0"),
        (["--out", "s3://cells/out"], "s3://cells/out: an object store is written to with --cl"),
        (["s3://cells/in"], "s3://cells/in: images in an object store are classified with --cl"),
        (["s3://nowhere/in", "--cluster"], "s3://nowhere/in: no such bucket"),
        (["s3://cells/none", "--cluster"], "s3://cells/none: neither images nor Parquet files"),
        (["s3:///none", "--cluster"], "s3:///: .*[Bb]ucket name"),
        (["nothing://cells", "--cluster"], "nothing://cells: unknown kind of address"),
        (["{tmp}/none.parquet", "--cluster"], "none.parquet: neither images nor Parquet files"),
        (["{tmp}/none.png", "--cluster"], "none.png: does not exist"),
        (["{tmp}/text.parquet", "--cluster"], "text.parquet: not a Parquet file, or a damaged"),
        (["{tmp}/other.parquet", "--cluster"], "expected the columns path and bytes, or image"),
        (["--out", "s3://nowhere/out", "--cluster"], "s3://nowhere/out: no such bucket"),
        (["--bundle", "{tmp}/none", "--cluster"], "none: not a bundle"),
    ],
)
def test_what_makes_no_sense_is_refused(
    images: Path, tiny_bundle: Path, tmp_path: Path, bucket: str, words: list[str], problem: str
) -> None:
    (tmp_path / "text.parquet").write_text("text")
    pq.write_table(pa.table({"label": ["monocyte"]}), tmp_path / "other.parquet")
    given = [word.format(tmp=tmp_path) for word in words]
    if given[0].startswith("--"):
        given = [str(images), *given]
    for option, value in (("--bundle", tiny_bundle), ("--out", tmp_path / "out")):
        if option not in given:
            given += [option, str(value)]
    with pytest.raises(ValueError, match=problem):
        classify(*given)
    assert not list(tmp_path.glob("out/*"))


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"{address}: no Ray cluster answers there"):
        session._knock(address)


def test_an_error_in_a_worker_is_one_sentence(
    images: Path, tiny_bundle: Path, tmp_path: Path, two_workers: None
) -> None:
    with pytest.raises(ValueError, match="parquet: the model's card does not say") as caught:
        classify(
            *(images, "--bundle", tiny_bundle, "--out", tmp_path / "out"),
            *("--cluster", "--um-per-pixel", "0.2"),
        )
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())  # nothing is worth going on with


def test_why_a_store_refuses_is_said_in_a_few_words() -> None:
    said = "When reading information for key 'a' in bucket 'b': AWS Error {} operation: {}"
    denied = said.format("ACCESS_DENIED during HeadObject", "No response body.")
    assert reason(OSError(denied)) == "no permission to read it"
    busy = said.format("SLOW_DOWN during GetObject", "Reduce your rate (Request ID: a; b)")
    assert reason(OSError(busy)).startswith("cannot be read: When reading")
    assert reason(OSError(busy)).endswith("Reduce your rate")


def test_a_store_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More often than pyarrow does by default."""
    asked: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) <= 4 else 200)
            self.send_header("Content-Length", "0" if len(asked) <= 4 else "5")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"cells")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage._system.cache_clear()
    try:
        assert storage.read("s3://busy/cell.png") == b"cells"
        assert asked == ["/busy/cell.png"] * 6  # refused four times, then its size and its content
    finally:
        server.shutdown()
        storage._system.cache_clear()


def test_the_rows_of_a_manifest_keep_their_scales_and_places(tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("path,label,um_per_pixel,x,y\na.png,ig,,3,4\na.png,ig,0.2,,\nb.png,ig,,,\n")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    one, other = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    items = [View(one, None, (3, 4)), View(one, 0.2), other]
    assert find_inputs([str(table)]).items == items
    assert find_sources([str(table)]) == Sources(items, [])
    with pytest.raises(ManifestError, match=r"a\.png' has a scale or a place of its own"):
        find_images([str(table)])
