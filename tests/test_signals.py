"""SIGTERM ends a command as Ctrl-C does, and neither leaves a traceback or a temporary file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drawn import draw_folder
from hemascope.stopping import SIGNALS, Stop
from samples import two_classes

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

# Sends itself a signal from within the work, so that it comes neither too early nor too late.
WHILE_WRITING = """
import os, sys
from hemascope import files
number, after = int(sys.argv.pop(1)), int(sys.argv.pop(1))
written = 0
create = files._create
def create_and_stop(path):
    global written
    create(path)
    written += 1
    if written == after:
        os.kill(os.getpid(), number)
files._create = create_and_stop
from hemascope.__main__ import main
main()
"""

WHILE_IMPORTING = """
import os, sys
number, module = int(sys.argv.pop(1)), sys.argv.pop(1)
class StopsAtModule:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, StopsAtModule())
from hemascope.__main__ import main
main()
"""

TRAIN = ["--model", "efficientnet_mini", "--image-size", "64", "--epochs", "1", "--batch-size", "8"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells") / "cells"
    draw_folder(folder, 3, seed=1, size=80)
    return folder


# What starts the tests in the background ignores Ctrl-C, and every process below it would too.
LISTENS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def run(code: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LISTENS + code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
@pytest.mark.parametrize("module", ["cyclopts", "numpy", "onnxruntime", "hemascope.cli.info"])
def test_while_it_is_imported_one_line_comes(number: int, module: str, tmp_path: Path) -> None:
    found = run(WHILE_IMPORTING, int(number), module, "info", cwd=tmp_path)
    assert found.returncode == STATUS[number]
    assert found.stderr.startswith("stopped;")
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
@pytest.mark.parametrize("after", [1, 2], ids=["job", "shard"])
def test_classify_leaves_no_half_part(cells: Path, tmp_path: Path, number: int, after: int) -> None:
    words = ["classify", cells, "--out", "p.csv"]
    found = run(WHILE_WRITING, int(number), after, *words, cwd=tmp_path)
    assert (found.returncode, found.stderr.count("\n")) == (STATUS[number], 1)
    assert found.stderr.startswith("stopped;")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "after"),
    [
        pytest.param(["evaluate", "CELLS", "--out", "out"], 2, marks=pytest.mark.slow),
        pytest.param(
            ["train", "CELLS", "--out", "out", "--cache", "c", *TRAIN], 1, marks=pytest.mark.slow
        ),
        pytest.param(
            ["train", "CELLS", "--out", "out", "--cache", "c", *TRAIN], 7, marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_every_command_ends_so(cells: Path, tmp_path: Path, words: list[str], after: int) -> None:
    words = [str(cells) if word == "CELLS" else word for word in words]
    found = run(WHILE_WRITING, int(signal.SIGTERM), after, *words, cwd=tmp_path)
    assert found.returncode == 143, found.stderr
    assert found.stderr.splitlines()[-1].startswith("stopped;")
    assert "Traceback" not in found.stderr
    assert hidden(tmp_path) == []


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from hemascope.__main__ import main;"
        "import atexit, sys; sys.argv = ['hemascope', '--version'];"
        "os.kill(os.getpid(), signal.SIGINT); main()"
    )
    assert run(code, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_study_ends_its_runs(tmp_path: Path) -> None:
    """The process that trains is ended too, and tidies up."""
    manifest = tmp_path / "m.csv"
    (tmp_path / "cells").mkdir()
    images = two_classes(tmp_path / "cells", 24)
    words = ["data", "split", images, "--test", "0.34", "--out", manifest]
    assert run("from hemascope.cli import main; main()", *words, cwd=tmp_path).returncode == 0
    study = tmp_path / "study"
    command = [sys.executable, "-m", "hemascope", "study", "run", manifest, "--out", study]
    command += ["--profile", "cpu", "--only", "deep_efficientnet", "--cache", tmp_path / "c"]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(study.glob("*/recipe.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert hidden(study) == []


@pytest.mark.parametrize("name", ["SIGHUP", "SIGXCPU"])
def test_a_closed_terminal_and_a_used_up_limit_stop_it_too(name: str) -> None:
    number = getattr(signal, name)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    stop = Stop()
    try:
        signal.signal(number, signal.SIG_DFL)
        stop.raise_on_signals()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert stop.status == 128 + number
        os.kill(os.getpid(), number)  # while things are tidied up
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "info"])
def test_a_closed_pipe_ends_a_command_quietly(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "hemascope", words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
