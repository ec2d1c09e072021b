"""A Classifier in processes that are forked off, in pickles and in copies."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from hemascope import Classifier

BEFORE = """
import multiprocessing, os, sys, threading
import numpy as np
from hemascope import Classifier
classifier = Classifier(threads=2)
image = np.full((96, 96, 3), 200, np.uint8)
expected = classifier.predict([image] * 20)[0].probabilities

def check() -> None:
    assert classifier.predict(image)[0].probabilities == expected
    assert classifier.predict([image] * 20)[19].probabilities == expected
"""

PRE_FORKING_SERVER = """
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        check()
        sys.exit(0)
    children.append(child)
check()
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""

CHILD_THAT_DOES_NOT_USE_IT = """
child = os.fork()
if child == 0:
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

CHILD_THAT_DROPS_IT = """
child = os.fork()
if child == 0:
    del classifier
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORK_WHILE_A_THREAD_CLASSIFIES = """
stop = threading.Event()
def go_on() -> None:
    while not stop.is_set():
        classifier.predict(image)
thread = threading.Thread(target=go_on)
thread.start()
codes = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        check()
        sys.exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
thread.join()
sys.exit(max(codes))
"""

MULTIPROCESSING = """
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    pool.apply(check)
process = context.Process(target=check)
process.start()
process.join()
sys.exit(process.exitcode)
"""

CHILD_OF_A_CHILD = """
child = os.fork()
if child == 0:
    check()
    grandchild = os.fork()
    if grandchild == 0:
        check()
        sys.exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "server",
    [
        PRE_FORKING_SERVER,
        CHILD_THAT_DOES_NOT_USE_IT,
        CHILD_THAT_DROPS_IT,
        FORK_WHILE_A_THREAD_CLASSIFIES,
        MULTIPROCESSING,
        CHILD_OF_A_CHILD,
    ],
    ids=["server", "unused", "dropped", "busy", "multiprocessing", "grandchild"],
)
def test_a_forked_child_predicts_and_ends(server: str) -> None:
    found = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEFORE + server],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.slow
def test_a_classifier_travels_as_its_bundle() -> None:
    classifier = Classifier(threads=1, tta=True)
    image = np.full((96, 96, 3), 200, np.uint8)
    expected = classifier.predict(image)[0].probabilities
    assert classifier.fallback is not None  # loaded or not, it comes along
    for other in (
        pickle.loads(pickle.dumps(classifier)),
        copy.deepcopy(classifier),
        copy.copy(classifier),
    ):
        assert (other.card.name, other.threads, other.tta) == (classifier.card.name, 1, True)
        assert other.predict(image)[0].probabilities == expected
        assert other.engine is not classifier.engine


def test_threads_that_were_not_asked_for_are_counted_where_it_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = pickle.dumps(Classifier())
    monkeypatch.setattr("hemascope.processors.count_processors", lambda: 3)
    assert pickle.loads(content).threads == 3
