"""Nothing is sent, and nothing is written where it was not asked, by any way in."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drawn import draw_cell

SOURCES = Path(__file__).parents[1] / "src" / "hemascope"
WAIT = 8  # seconds; onnxruntime's telemetry asks for its host within these
WAYS = {
    "library": f"""
import os, time
import hemascope
classifier = hemascope.Classifier()
classifier.predict("cell.png")
assert "ORT_DISABLE_TELEMETRY" not in os.environ
time.sleep({WAIT})
""",
    "worker": f"""
import multiprocessing, time
import hemascope
def work():
    assert hemascope.Classifier().predict("cell.png")[0].label
    time.sleep({WAIT})
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
""",
    "command line": f"""
import atexit, sys, time
from hemascope.__main__ import main
atexit.register(time.sleep, {WAIT})
sys.argv = ["hemascope", "classify", "cell.png", "--out", "p.csv"]
main()
""",
}
CONNECTION = re.compile(r"(?:connect|sendto|sendmsg)\([^{]*\{sa_family=AF_INET")


@pytest.fixture(scope="module")
def strace() -> str:
    path = shutil.which("strace")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing; install it")
        pytest.skip("strace is missing")
    return path


@pytest.fixture(scope="module")
def ended(strace: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """The folder and the exit of each way; they run side by side, since they wait most of the time.

    The folder has the empty home that the process was given, and the trace of its connections.
    """
    started = {}
    for way, program in WAYS.items():
        folder = tmp_path_factory.mktemp("way")
        for name in ("home", "work"):
            (folder / name).mkdir()
        draw_cell("neutrophil", 0).save(folder / "work" / "cell.png")
        (folder / "work" / "program.py").write_text(program)
        environment = os.environ | {
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "home" / "cache"),
        }
        environment.pop("ORT_DISABLE_TELEMETRY", None)
        watch = [strace, "-f", "-qq", "-e", "trace=network", "-o", str(folder / "trace")]
        started[way] = (
            folder,
            subprocess.Popen(
                [*watch, sys.executable, "program.py"],
                cwd=folder / "work",
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
    ends = {}
    for way, (folder, process) in started.items():
        _, error = process.communicate(timeout=180)
        ends[way] = folder, "" if process.returncode == 0 else error or "no word"
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_file_in_the_home_and_no_connection(
    ended: dict[str, tuple[Path, str]], way: str
) -> None:
    folder, error = ended[way]
    assert error == ""
    assert list((folder / "home").rglob("*")) == []
    trace = (folder / "trace").read_text()
    assert [line for line in trace.splitlines() if CONNECTION.search(line)] == []


def test_the_trace_would_show_a_connection(strace: str, tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('1.2.3.4', 9))"
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=network", "-o", trace, sys.executable, "-c", code]
    subprocess.run(command, capture_output=True, timeout=60)
    assert CONNECTION.search(trace.read_text())


@pytest.mark.slow
def test_onnxruntime_is_imported_by_one_module() -> None:
    """Only there is its telemetry off before it is imported."""
    for path in SOURCES.rglob("*.py"):
        inside = path.relative_to(SOURCES).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                # The second imports the first, by way of Engine.
                assert inside in ("bundle/session.py", "post_training/quantise.py")
