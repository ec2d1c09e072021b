"""`hemascope serve`: the classifier and the count behind an address, and the review pages."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hemascope.cli.options import (
    BundlePath,
    DatabaseAddress,
    MaxPixels,
    Threads,
    bundle_folder,
    limit_pixels,
)
from hemascope.cli.terminal import escape, out, print_warning
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.smear.locate import Locator

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from hemascope.serve.app.settings import Settings
    from hemascope.serve.counting import Counting
    from hemascope.serve.pages.station import Station

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
    connections: int = CONNECTIONS,
    store: Path | None = None,
    database: DatabaseAddress = None,
    import_from: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    two_signatures: Annotated[bool, Parameter(negative="")] = False,
    behind_https: Annotated[bool, Parameter(negative="")] = False,
    demo: Annotated[bool, Parameter(negative="")] = False,
    threads: Threads = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Answer other programs over HTTP, and show the review pages: look, correct, sign.

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
    store
        Folder of a station's store, which brings the review pages; 'hemascope station add-user'
        makes one.
    import_from
        A folder whose folders may be imported as samples on the pages; may be given several times.
    two_signatures
        A technologist and a reviewer must sign each sample.
    behind_https
        Browsers send the session over HTTPS only, by way of a proxy that encrypts.
    demo
        Review pages with a drawn sample, in a store that is gone when the service stops.
    """
    from hemascope.serve.app.run import run_app
    from hemascope.serve.app.settings import Settings
    from hemascope.serve.counting import Counting

    limit_pixels(max_pixels)
    if demo and (store is not None or database is not None):
        raise ValueError("--demo has a store of its own; leave out --store and --database")
    if database is not None and store is None:
        raise ValueError("--database needs --store, the folder for the images")
    given = os.environ.get(TOKEN, "")
    classifier = Classifier(bundle_folder(bundle), threads)
    settings = Settings(
        given or secrets.token_urlsafe(24),
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
        out.print(f"token: {settings.token}", soft_wrap=True, highlight=False)
    options = StationOptions(import_from, two_signatures, behind_https)
    with _station(counting, store, database, demo, options) as station:
        listens = escape(f"listening on http://{host}:{port}, until Ctrl-C")
        out.print(f"{listens}. {RESEARCH_USE_ONLY}", soft_wrap=True, highlight=False)
        run_app(_app(settings, counting, station), host, port, drain, connections)
    return 0


@dataclass(frozen=True)
class StationOptions:
    """What an administrator decides of the review pages."""

    folders: tuple[Path, ...]
    needs_two: bool
    secure: bool


@contextmanager
def _station(
    counting: Counting,
    folder: Path | None,
    database: str | None,
    demo: bool,
    options: StationOptions,
) -> Iterator[Station | None]:
    """The station of a store, or one to try; None where no pages are asked for."""
    from hemascope.serve.demo import DEMO, fill_demo
    from hemascope.serve.pages.station import Station
    from hemascope.serve.store.database import open_existing, open_store
    from hemascope.serve.store.people import has_users

    if folder is None and not demo:
        yield None
        return
    with TemporaryDirectory(prefix="hemascope-demo-") as temporary:
        store = (
            open_store(Path(temporary) / "store")
            if folder is None
            else open_existing(folder, database)
        )
        if demo:
            password = fill_demo(store)
            out.print(f"log in as {DEMO}, password {password}", soft_wrap=True, highlight=False)
        elif not has_users(store):
            raise ValueError(f"{folder}: nobody may log in; see 'hemascope station add-user'")
        yield Station(store, counting, options.folders, options.needs_two, options.secure)
        store.close()


def _app(settings: Settings, counting: Counting, station: Station | None) -> Starlette:
    from hemascope.serve.app.create import create_app
    from hemascope.serve.pages.routes import make_pages

    if station is None:
        return create_app(settings, counting)
    return create_app(settings, counting, make_pages(station, settings), station.running)
