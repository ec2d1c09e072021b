"""`hemascope serve`: the classifier and the count behind an address."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.cli.options import BundlePath, MaxPixels, Threads, bundle_folder, limit_pixels
from hemascope.cli.terminal import escape, out, print_warning
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.smear.locate import Locator

TOKEN = "HEMASCOPE_TOKEN"
CONNECTIONS = 1000


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    bundle: BundlePath = None,
    locator: Path | None = None,
    window: float = 1.0,
    batch_size: int = 8,
    queue: int = 64,
    timeout: float = 30.0,
    drain: float = 30.0,
    connections: Annotated[int, Parameter(name="--connections")] = CONNECTIONS,
    threads: Threads = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Answer other programs over HTTP: predictions of images, and differential counts.

    Programs send the token that HEMASCOPE_TOKEN holds; where it is not set, a new one is made and
    printed. The service stops at Ctrl-C or SIGTERM, when it has answered what it took.

    Parameters
    ----------
    host
        Where it listens; by default only programs on this machine reach it. Others should reach it
        through a proxy that encrypts.
    port
        The port; 0 takes a free one.
    locator
        Folder of another network that finds cells.
    window
        How many milliseconds a batch waits for more images.
    batch_size
        Largest batch of images.
    queue
        How many images may wait; requests for more are refused with 503.
    timeout
        How many seconds an answer may take.
    drain
        How many seconds a stop waits for what still runs.
    connections
        How many connections may be open at once.
    """
    from hemascope.serve.app.create import create_app
    from hemascope.serve.app.run import run_app
    from hemascope.serve.app.settings import Settings
    from hemascope.serve.counting import Counting

    limit_pixels(max_pixels)
    given = os.environ.get(TOKEN, "")
    token = given or secrets.token_urlsafe(24)
    classifier = Classifier(bundle_folder(bundle), threads)
    settings = Settings(
        token,
        window=window / 1000,
        batch_size=batch_size,
        queue=queue,
        lines=min(queue, Settings.lines),
        timeout=timeout,
        drain=drain,
        workers=classifier.threads,
    )
    finder = Locator.from_bundle(locator, threads=1)
    counting = Counting(classifier, finder, finder.card.model_sha256)
    if host not in ("127.0.0.1", "::1", "localhost"):
        print_warning(f"{host} can be reached from other machines, and nothing is encrypted")
    if not given:
        out.print(f"token: {token}", soft_wrap=True, highlight=False)
    listens = escape(f"listening on http://{host}:{port}, until Ctrl-C")
    out.print(f"{listens}. {RESEARCH_USE_ONLY}", soft_wrap=True, highlight=False)
    run_app(create_app(settings, counting), host, port, drain, connections)
    return 0
