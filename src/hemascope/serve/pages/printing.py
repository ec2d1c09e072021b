"""A page → PDF, by Chromium on the station, without scripts and network."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from hemascope.serve.app.problems import ProblemError

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0
ONE = threading.Lock()  # a browser takes memory: one at a time
NONE = (
    "a PDF needs Chromium on the station ('apt-get install chromium'); or print the report page "
    "from your browser"
)
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-background-networking",
)


def find_chromium() -> str | None:
    """The browser that prints, where the station has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def print_page(page: str) -> bytes:
    """The page as a PDF. Raises ProblemError where no browser is there, or it fails."""
    browser = find_chromium()
    if browser is None:
        raise ProblemError(501, NONE)
    with ONE, TemporaryDirectory(prefix="hemascope-pdf-") as folder:
        source, printed = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_text(page, encoding="utf-8")
        words = [browser, *OPTIONS, f"--user-data-dir={folder}/profile"]
        if os.geteuid() == 0:  # its sandbox refuses to run as root; the page has no scripts
            words.append("--no-sandbox")
        words += [f"--print-to-pdf={printed}", source.as_uri()]
        try:
            subprocess.run(words, check=True, capture_output=True, timeout=SECONDS)
            return printed.read_bytes()
        except (OSError, subprocess.SubprocessError):
            raise ProblemError(500, "Chromium could not print the report; print its page") from None
