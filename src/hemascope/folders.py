"""find_files: the files of some kinds below a folder, and what the search passed over.

Links are followed. Each real folder is searched once, under its own name where it has one below
the top, so that links to the same folder double no file and a loop of links comes to an end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PassedOver:
    """What a search for files left out.

    `suffixes` counts the files of other kinds by their suffix in lower case, "" for none; `hidden`
    counts hidden files and folders. `repeated` counts links to folders that are searched anyway, or
    that they lie in. `unreadable` are folders and links that could not be followed, with the
    reason.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    repeated: int = 0
    unreadable: tuple[str, ...] = ()

    def __add__(self, other: PassedOver) -> PassedOver:
        return PassedOver(
            self.suffixes + other.suffixes,
            self.hidden + other.hidden,
            self.repeated + other.repeated,
            tuple(dict.fromkeys(self.unreadable + other.unreadable)),
        )

    def __bool__(self) -> bool:
        return bool(self.suffixes or self.hidden or self.repeated or self.unreadable)

    def __str__(self) -> str:
        """All of it in a few words, such as "3 .txt, 1 hidden"; empty where nothing was."""
        kinds = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
        counts = [f"{count} {suffix or 'without a suffix'}" for suffix, count in kinds]
        if self.hidden:
            counts.append(f"{self.hidden} hidden")
        if self.repeated:
            link = "link to a folder that is" if self.repeated == 1 else "links to folders that are"
            counts.append(f"{self.repeated} {link} searched anyway")
        if self.unreadable:
            counts.append(f"{len(self.unreadable)} unreadable ({'; '.join(self.unreadable[:3])}")
            counts[-1] += "; …)" if len(self.unreadable) > 3 else ")"
        return ", ".join(counts)


NOTHING = PassedOver()


def find_files(top: str, suffixes: Collection[str]) -> tuple[list[str], PassedOver]:
    """The files with one of the suffixes (in lower case) below a folder, and what else is there.

    Files come in order, those of a folder before those of the folders in it. Raises nothing: what
    cannot be read is in PassedOver.
    """
    search = _Search(suffixes)
    search.run(top)
    folders = sorted(search.found, key=lambda folder: folder.split(os.sep))
    files = [os.path.join(folder, name) for folder in folders for name in search.found[folder]]
    passed_over = PassedOver(
        search.others, search.hidden, search.repeated, tuple(sorted(search.unreadable))
    )
    return files, passed_over


def find_folders(top: str) -> tuple[list[str], PassedOver]:
    """A folder and those below it, each real one once, in order; and what could not be read."""
    search = _Search(())
    search.run(top)
    folders = sorted(search.found, key=lambda folder: folder.split(os.sep))
    return folders, PassedOver(unreadable=tuple(sorted(search.unreadable)))


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Whether a file's name ends in one of the suffixes, whatever its case."""
    return os.path.splitext(name)[1].lower() in suffixes


class _Search:
    """A search on its way: real folders first, then those that only links lead to."""

    def __init__(self, suffixes: Collection[str]) -> None:
        self.suffixes = suffixes
        self.found: dict[str, list[str]] = {}  # the wanted files' names by folder
        self.others: Counter[str] = Counter()
        self.hidden = self.repeated = 0
        self.unreadable: list[str] = []
        self._seen: set[str] = set()
        self._links: list[os.DirEntry[str]] = []

    def run(self, top: str) -> None:
        self._search(top, os.path.realpath(top))
        for link in self._links:  # which grows as links are found behind links
            real, around = (os.path.realpath(path) for path in (link, os.path.dirname(link.path)))
            if os.path.join(around, "").startswith(os.path.join(real, "")):
                self.repeated += 1  # a loop: the link lies in the folder that it leads to
            else:
                self._search(link.path, real)

    def _search(self, folder: str, real: str) -> None:
        """Searches a folder and the real ones below it; `real` is its path without links."""
        waiting = [(folder, real)]
        while waiting:
            folder, real = waiting.pop()
            if real in self._seen:
                self.repeated += 1
                continue
            self._seen.add(real)
            try:
                with os.scandir(folder) as opened:
                    entries = sorted(opened, key=lambda entry: entry.name)
            except OSError as error:
                self.unreadable.append(f"{folder}: {error.strerror}")
                continue
            below = self._sort(folder, entries)
            waiting += [(entry.path, os.path.join(real, entry.name)) for entry in reversed(below)]

    def _sort(self, folder: str, entries: Iterable[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
        """Notes a folder's files and links; the real folders in it are handed back."""
        files: list[str] = []
        below: list[os.DirEntry[str]] = []
        for entry in entries:
            if entry.name.startswith("."):
                self.hidden += 1
            elif _is_folder(entry):
                (self._links if entry.is_symlink() else below).append(entry)
            elif has_suffix(entry.name, self.suffixes):
                files.append(entry.name)  # a broken link too: whoever opens it says what is wrong
            elif entry.is_symlink() and (problem := _problem_of(entry.path)):
                self.unreadable.append(f"{entry.path}: {problem}")
            else:
                self.others[os.path.splitext(entry.name)[1].lower()] += 1
        self.found[folder] = files
        return below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to where nobody may look
        return False


def _problem_of(link: str) -> str:
    """Why a link leads nowhere; empty if it leads to something."""
    try:
        os.stat(link)
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return error.strerror or "cannot be read"
    return ""


def find_spelling(path: str, root: str = "") -> str:
    """A path as Windows writes it, with slashes, if only so a file is there; others as they are."""
    if "\\" not in path or (os.sep == "/" and os.path.lexists(os.path.join(root, path))):
        return path
    slashed = path.replace("\\", "/")
    return slashed if os.path.lexists(os.path.join(root, slashed)) else path
