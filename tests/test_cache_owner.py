"""A cache in a folder that others may write to: what they put there changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hemascope.data import cache as cache_module
from hemascope.data.cache import open_cache
from hemascope.preprocess import InputSpec, View
from samples import noise_files

SPEC = InputSpec(64)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows tells no owners")


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    (tmp_path / "images").mkdir()
    paths = sorted(noise_files(tmp_path / "images", 3, 99).glob("00*.png"))
    return [View(path) for path in paths]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def poison(folder: Path) -> Path:
    """White images under the name of the cache, with a header that fits them."""
    (images_path,) = folder.glob("*.npy")
    white = np.full_like(np.load(images_path), 255)
    images_path.unlink()
    np.save(images_path, white)
    header_path = images_path.with_suffix(".json")
    header = json.loads(header_path.read_text())
    header_path.write_text(json.dumps(header | {"checksum": cache_module._checksum(white)}))
    return images_path


def test_the_file_of_another_user_is_made_anew(
    views: list[View], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(open_cache(views, SPEC, shared))
    poison(shared)
    assert (open_cache(views, SPEC, shared) == 255).all()  # of this user it would be taken
    owner = os.geteuid()
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(ValueError, match="another user's, or others may write it"):
            open_cache(views, SPEC, shared)  # what it writes is not its own here either
    np.testing.assert_array_equal(open_cache(views, SPEC, shared), expected)


def test_a_file_that_others_may_write_is_made_anew(views: list[View], shared: Path) -> None:
    expected = np.array(open_cache(views, SPEC, shared))
    poison(shared).chmod(0o666)
    np.testing.assert_array_equal(open_cache(views, SPEC, shared), expected)


def test_what_a_killed_process_began_is_removed(views: list[View], shared: Path) -> None:
    open_cache(views, SPEC, shared)
    (images_path,) = shared.glob("*.npy")
    abandoned = shared / f".{images_path.name}.0123abcd.npy"
    written = shared / f".{images_path.name}.4567abcd.npy"
    for path in (abandoned, written):
        path.write_bytes(b"half")
    images_path.unlink()
    with cache_module._locked(written):
        open_cache(views, SPEC, shared)
    assert not abandoned.exists()
    assert written.exists()


def test_nobody_else_may_write_what_is_made(views: list[View], shared: Path) -> None:
    before = os.umask(0)
    try:
        open_cache(views, SPEC, shared)
    finally:
        os.umask(before)
    (images_path,) = shared.glob("*.npy")
    assert images_path.stat().st_mode & 0o022 == 0
    first = images_path.stat().st_ino
    open_cache(views, SPEC, shared)
    assert images_path.stat().st_ino == first  # and it is used again


def test_a_user_without_a_home_says_where_the_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HEMASCOPE_CACHE", str(tmp_path / "here"))
    assert cache_module.default_cache() == tmp_path / "here"
    monkeypatch.delenv("HEMASCOPE_CACHE")
    with pytest.raises(ValueError, match="no home directory for decoded images; say where"):
        cache_module.default_cache()
