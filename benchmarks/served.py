"""A station that is served in a thread of this process, and a browser that looks at it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from hemascope.serve.app.create import create_app
from hemascope.serve.app.settings import Settings
from hemascope.serve.pages.routes import make_pages
from hemascope.serve.pages.station import Station


@contextmanager
def served(station: Station) -> Iterator[str]:
    """The address of a station, while it is served."""
    settings = Settings("a token that nobody uses", workers=1)
    app = create_app(settings, station.counting, make_pages(station, settings), station.running)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def launched() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
