"""`hemascope serve`: the classifier and the count behind an address, and the review pages."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from hemascope.cli.options import (
    BundlePath,
    DatabaseAddress,
    LocatorPath,
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


@dataclass(frozen=True)
class Limits:
    """How much the service takes at once, and how long it waits."""

    window: float = 1.0
    """How many milliseconds a batch waits for more images while others are worked on."""
    batch_size: int = 8
    """Largest batch of images."""
    queue: int = 64
    """How many images may wait; requests for more are refused with 503."""
    timeout: float = 30.0
    """How many seconds an answer may take."""
    drain: float = 30.0
    """How many seconds a stop waits for what still runs."""
    connections: int = CONNECTIONS
    """How many connections may be open at once."""

    def settings(self, workers: int) -> Settings:
        """The settings, with the token that is given, or a new one, which is printed."""
        from hemascope.serve.app.settings import Settings

        given = os.environ.get(TOKEN, "")
        settings = Settings(
            given or secrets.token_urlsafe(24),
            workers=workers,
            window=self.window / 1000,
            batch_size=self.batch_size,
            queue=self.queue,
            lines=min(self.queue, LINES),
            timeout=self.timeout,
            drain=self.drain,
        )
        if not given:
            out.print(f"token: {settings.token}", soft_wrap=True, highlight=False)
        return settings


@dataclass(frozen=True)
class StoreOptions:
    """Where the review pages keep what they show."""

    store: Path | None = None
    """Folder of a station's store, which brings the review pages; 'hemascope station add-user'
    makes one."""
    database: DatabaseAddress = None
    demo: Annotated[bool, Parameter(negative="")] = False
    """Review pages with a drawn sample, in a store that is gone when the service stops."""

    def __post_init__(self) -> None:
        if self.demo and (self.store is not None or self.database is not None):
            raise ValueError("--demo has a store of its own; leave out --store and --database")
        if self.database is not None and self.store is None:
            raise ValueError("--database needs --store, the folder for the images")


@dataclass(frozen=True)
class StationOptions:
    """What an administrator decides of the review pages."""

    import_from: Annotated[tuple[Path, ...], Parameter(negative="")] = ()
    """A folder whose folders may be imported as samples on the pages; may be given several
    times."""
    two_signatures: Annotated[bool, Parameter(negative="")] = False
    """A technologist and a reviewer must sign each sample."""
    behind_https: Annotated[bool, Parameter(negative="")] = False
    """Browsers send the session over HTTPS only, by way of a proxy that encrypts."""
    language: LanguageName | None = None
    """Of the pages; by default the browser's."""


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    bundle: BundlePath = None,
    locator: LocatorPath = None,
    limits: Annotated[Limits | None, Parameter(name="*")] = None,
    store: Annotated[StoreOptions | None, Parameter(name="*")] = None,
    station: Annotated[StationOptions | None, Parameter(name="*")] = None,
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
    """
    limit_pixels(max_pixels)
    limits, options = limits or Limits(), station or StationOptions()
    with _open_store(store or StoreOptions()) as opened:
        classifier = Classifier(_choose_bundle(bundle, opened), threads)
        settings = limits.settings(classifier.threads)
        where = (host, port, limits.connections)
        _serve(settings, _counting(classifier, locator), opened, options, where)
    return 0


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
def _open_store(options: StoreOptions) -> Iterator[Store | None]:
    """The store of a station, or one to try; None where no pages are asked for."""
    folder = options.store
    if folder is None and not options.demo:
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
            store = open_existing(folder, options.database)
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
        options.import_from,
        options.two_signatures,
        options.behind_https,
        language=options.language,
    )
    pages, counts = make_pages(station, settings), store.folder / COUNTS
    return create_app(settings, counting, pages, station.running, counts)
