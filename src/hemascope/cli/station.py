"""`hemascope station`: the people of a review station, its audit trail, backup and restore."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from hemascope.cli.options import DatabaseAddress, Force
from hemascope.cli.terminal import escape, out, print_error

if TYPE_CHECKING:
    from hemascope.serve.store.database import Store

app = App(
    name="station",
    help="Look after a review station: people, audit trail, backup, restore.",
)
RoleName = Literal["viewer", "technologist", "reviewer", "administrator"]
StoreFolder = Annotated[Path, Parameter(help="Folder of the station's store.")]


@app.command
def add_user(
    store: StoreFolder, name: str, role: RoleName, *, database: DatabaseAddress = None
) -> int:
    """Add a person who may use the station, and make its store if there is none.

    The password is asked for, or read from a pipe.

    Parameters
    ----------
    name
        What the person logs in with, and signs as.
    role
        A viewer looks; a technologist imports, corrects and signs; a reviewer amends and signs as
        a reviewer too; an administrator may do all of it.
    """
    from hemascope.serve.store.database import open_store
    from hemascope.serve.store.people import add_user as add

    add(open_store(store, database), name, _read_password(), role)
    out.print(escape(f"{name} may use {store} as {role}"))
    return 0


@app.command
def change_user(
    store: StoreFolder,
    name: str,
    *,
    role: RoleName | None = None,
    password: Annotated[bool, Parameter(negative="")] = False,
    disabled: bool | None = None,
    database: DatabaseAddress = None,
) -> int:
    """Change a person's role or password, or let nobody log in by that name; ends all sessions.

    Parameters
    ----------
    name
        The person's name.
    role
        The new role.
    password
        Ask for a new password; it unlocks the account as well.
    disabled
        Whether the person is kept out.
    """
    from hemascope.serve.store.people import change_user as change

    new = _read_password() if password else None
    change(_open(store, database), name, password=new, role=role, disabled=disabled)
    out.print(escape(f"{name} is changed"))
    return 0


@app.command
def verify(
    store: StoreFolder, *, expect: str | None = None, database: DatabaseAddress = None
) -> int:
    """Check the audit trail, what was signed, images and bundles. Exits with 1 if one is wrong.

    Of a backup, the files of the counts are checked as well.

    It prints the hash of the trail's last entry. Keep it elsewhere: a later check that is told to
    expect it also finds out somebody who wrote the whole trail anew.

    Parameters
    ----------
    expect
        A hash that an earlier check has printed.
    """
    from hemascope.serve.store.audit import verify as verify_trail
    from hemascope.serve.store.bundles import verify_bundles
    from hemascope.serve.store.copied import verify_files
    from hemascope.serve.store.signing import verify_signatures

    opened = _open(store, database)
    with opened.reading() as connection:
        found = verify_trail(connection, expect)
        problems = [*found.problems, *verify_signatures(connection)]
    problems += [*opened.images.verify(), *verify_bundles(opened), *verify_files(store)]
    for problem in problems:
        print_error(problem)
    out.print(f"{found.entries} entries; last hash {found.hash}", soft_wrap=True)
    return 1 if problems else 0


@app.command
def export_labels(
    store: StoreFolder,
    folder: Path,
    *,
    laboratory: str = "",
    force: Force = False,
    database: DatabaseAddress = None,
) -> int:
    """Write the cells of signed samples as a manifest, for evaluate, adapt and train.

    Parameters
    ----------
    folder
        Where labels.csv and the fields are written.
    laboratory
        What the laboratory is called.
    """
    from hemascope.serve.store.signed_labels import MANIFEST
    from hemascope.serve.store.signed_labels import export_labels as export

    number = export(_open(store, database), folder, laboratory, force)
    out.print(escape(f"{number} cells are in {folder / MANIFEST}"))
    return 0


@app.command
def backup(store: StoreFolder, folder: Path) -> int:
    """Copy a store, also while its station runs. Of a backup that is there, what is new is added.

    The copy has the database, the images, the bundles that the station made, and the counts.

    Parameters
    ----------
    folder
        Where the copy is, or will be.
    """
    from hemascope.serve.store.backup import back_up

    number = back_up(_open(store, None), folder)
    out.print(escape(f"the database, {number} images, bundles and counts are in {folder}"))
    return 0


@app.command
def restore(folder: Path, store: StoreFolder) -> int:
    """Make a store of a backup, in a folder that has none.

    Parameters
    ----------
    folder
        Where the backup is.
    """
    from hemascope.serve.store.backup import restore as restore_from

    number = restore_from(folder, store)
    out.print(escape(f"{store} has the database, {number} images, bundles and counts"))
    return 0


def _open(folder: Path, database: str | None) -> Store:
    from hemascope.serve.store.database import open_existing

    return open_existing(folder, database)


def _read_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("password: ")
    if getpass.getpass("once more: ") != first:
        raise ValueError("the two passwords differ")
    return first
