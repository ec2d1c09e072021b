"""`hemascope serve`: the classifier and the count behind an address, and the review pages."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from hemascope.serve.store.database import Store

TOKEN = "HEMASCOPE_TOKEN"
CONNECTIONS = 1000
LINES = 64  # of one request
LanguageName = Literal["en", "de"]


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
    language: LanguageName | None = None,
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
        How many milliseconds a batch waits for more images while others are worked on.
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
    language
        Of the pages; by default the browser's.
    demo
        Review pages with a drawn sample, in a store that is gone when the service stops.
    """
    _check(demo, store, database)
    limit_pixels(max_pixels)
    options = StationOptions(import_from, two_signatures, behind_https, language)
    with _open_store(store, database, demo) as opened:
        classifier = Classifier(_choose_bundle(bundle, opened), threads)
        settings = _settings(
            workers=classifier.threads,
            window=window / 1000,
            batch_size=batch_size,
            queue=queue,
            lines=min(queue, LINES),
            timeout=timeout,
            drain=drain,
        )
        _serve(settings, _counting(classifier, locator), opened, options, (host, port, connections))
    return 0


@dataclass(frozen=True)
class StationOptions:
    """What an administrator decides of the review pages."""

    folders: tuple[Path, ...]
    needs_two: bool
    secure: bool
    language: LanguageName | None


def _check(demo: bool, store: Path | None, database: str | None) -> None:
    if demo and (store is not None or database is not None):
        raise ValueError("--demo has a store of its own; leave out --store and --database")
    if database is not None and store is None:
        raise ValueError("--database needs --store, the folder for the images")


def _settings(**limits: Any) -> Settings:
    """The limits, with the token that is given, or a new one, which is printed."""
    from hemascope.serve.app.settings import Settings

    given = os.environ.get(TOKEN, "")
    settings = Settings(given or secrets.token_urlsafe(24), **limits)
    if not given:
        out.print(f"token: {settings.token}", soft_wrap=True, highlight=False)
    return settings


def _counting(classifier: Classifier, locator: Path | None) -> Counting:
    from hemascope.serve.counting import Counting

    finder = Locator.from_bundle(locator, threads=1)
    return Counting(classifier, finder, finder.card.model_sha256)


def _choose_bundle(bundle: Path | None, store: Store | None) -> Path | None:
    """The bundle that is given, or else the one that an administrator chose on the learn page."""
    if bundle is not None or store is None:
        return bundle_folder(bundle)
    from hemascope.serve.store.bundles import chosen_folder

    return chosen_folder(store) or bundle_folder(None)


@contextmanager
def _open_store(folder: Path | None, database: str | None, demo: bool) -> Iterator[Store | None]:
    """The store of a station, or one to try; None where no pages are asked for."""
    if folder is None and not demo:
        yield None
        return
    from hemascope.serve.demo import DEMO, fill_demo
    from hemascope.serve.store.database import open_existing, open_store
    from hemascope.serve.store.people import has_users

    with TemporaryDirectory(prefix="hemascope-demo-") as temporary:
        if folder is None:
            store = open_store(Path(temporary) / "store")
            password = fill_demo(store)
            out.print(f"log in as {DEMO}, password {password}", soft_wrap=True, highlight=False)
        else:
            store = open_existing(folder, database)
            if not has_users(store):
                raise ValueError(f"{folder}: nobody may log in; see 'hemascope station add-user'")
        yield store
        store.close()


def _serve(
    settings: Settings,
    counting: Counting,
    store: Store | None,
    options: StationOptions,
    where: tuple[str, int, int],
) -> None:
    """Serves at a host and a port with so many connections, until a signal."""
    from hemascope.serve.app.run import run_app

    host, port, connections = where
    if host not in ("127.0.0.1", "::1", "localhost"):
        print_warning(f"{host} can be reached from other machines, and nothing is encrypted")
    listens = escape(f"listening on http://{host}:{port}, until Ctrl-C")
    out.print(f"{listens}. {RESEARCH_USE_ONLY}", soft_wrap=True, highlight=False)
    run_app(_app(settings, counting, store, options), host, port, settings.drain, connections)


def _app(
    settings: Settings, counting: Counting, store: Store | None, options: StationOptions
) -> Starlette:
    from hemascope.serve.app.create import create_app

    if store is None:
        return create_app(settings, counting)
    from hemascope.serve.pages.routes import make_pages
    from hemascope.serve.pages.station import Station
    from hemascope.serve.store.copied import COUNTS

    station = Station(
        store,
        counting,
        options.folders,
        options.needs_two,
        options.secure,
        language=options.language,
    )
    pages, counts = make_pages(station, settings), store.folder / COUNTS
    return create_app(settings, counting, pages, station.running, counts)
