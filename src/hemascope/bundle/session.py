"""Session: a graph on onnxruntime, which sends nothing out and survives a fork of its process."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"
SILENT = 4  # fatal errors only: all others are raised as well, and end as one sentence of ours


def _import_onnxruntime() -> Any:
    """onnxruntime, without lines in the terminal, and without the telemetry of version 1.32.

    Only the environment at its first import switches off all of it: a device id and a base of
    events in the user's cache, and a connection. The environment is then as it was before.
    """
    was_imported = "onnxruntime" in sys.modules
    before = os.environ.get(TELEMETRY_VARIABLE)
    os.environ[TELEMETRY_VARIABLE] = "1"
    try:
        import onnxruntime
    finally:
        if before is None:
            del os.environ[TELEMETRY_VARIABLE]
        else:
            os.environ[TELEMETRY_VARIABLE] = before
    if was_imported:  # by the program that imports us; what is left to do is to write no events
        onnxruntime.disable_telemetry_events()
    else:  # the program that imports us has not chosen what it wants to read in its log
        onnxruntime.set_default_logger_severity(SILENT)
    return onnxruntime


onnxruntime = _import_onnxruntime()


class Session:
    """A graph that is loaded and ready. Safe to share between threads.

    The threads of onnxruntime do not exist in a process that was forked off: there, the graph is
    loaded anew when it is first used. Raises onnxruntime's errors for a graph that it cannot load.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        self.providers: list[str] = onnxruntime.get_available_providers()
        self._model, self._threads = model, threads
        self._lock = threading.Lock()
        self._opened: Any = self._open()
        _sessions.add(self)

    def input_shapes(self) -> dict[str, list[Any]]:
        """The name of each input, and its shape; an axis of any length is a name or None."""
        return {node.name: node.shape for node in self._current().get_inputs()}

    def output_shapes(self) -> dict[str, list[Any]]:
        """The same of the outputs."""
        return {node.name: node.shape for node in self._current().get_outputs()}

    def run(self, outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
        """The outputs of these names, as arrays, for the inputs by their names."""
        found: list[Any] = self._current().run(outputs, inputs)
        return found

    def _open(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = SILENT
        return onnxruntime.InferenceSession(self._model, options, providers=self.providers)

    def _current(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _leave_to_parent(self) -> None:
        """Forgets the parent's session in a forked child, without ending it.

        Its end would wait for threads that are not there. Another reference, which nobody gives
        back, keeps it to the end of the process.
        """
        if self._opened is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))
        self._opened, self._lock = None, threading.Lock()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for session in list(_sessions):
        session._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
