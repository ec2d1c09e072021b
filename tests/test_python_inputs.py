"""Images as Python programs hold them: one gives one row, several one each, others an error."""

from __future__ import annotations

import io
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemascope import Classifier, ImageError
from hemascope.preprocess import View, decode

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

SIZE = (72, 80)  # height and width differ, so that a turned image is noticed


@pytest.fixture(scope="module")
def classifier(tiny_bundle: Path) -> Classifier:
    return Classifier(tiny_bundle)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path, pixels: NDArray[np.uint8]) -> Path:
    out = tmp_path / "cell.png"
    Image.fromarray(pixels).save(out)
    return out


class OwnPath(os.PathLike[str]):
    """What other packages have as paths."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def written(path: Path) -> io.BytesIO:
    """A file in memory that stands at its end, as one does that was just written."""
    file = io.BytesIO()
    file.write(path.read_bytes())
    return file


def entry(path: Path) -> os.DirEntry[str]:
    return next(iter(os.scandir(path.parent)))


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def tensor(path: Path) -> Any:
    return torch.from_numpy(np.asarray(Image.open(path)).copy())  # (H,W,3)


ONE: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "path": lambda path: path,
    "pure path": lambda path: PurePath(path),
    "path-like": OwnPath,
    "entry": entry,
    "entry of bytes": lambda path: next(iter(os.scandir(os.fsencode(path.parent)))),
    "numpy str": lambda path: np.str_(path),
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "memoryview of pixels": lambda path: memoryview(np.asarray(Image.open(path))),
    "mmap": mapped,
    "open file": lambda path: path.open("rb"),
    "unbuffered file": lambda path: path.open("rb", buffering=0),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "BytesIO at its end": written,
    "Pillow": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "array of floats": lambda path: np.asarray(Image.open(path)) / 255,
    "view": lambda path: View(path),
    "view of a file": lambda path: View(path.open("rb")),
    "tensor HWC": tensor,
    "tensor CHW": lambda path: tensor(path).permute(2, 0, 1),
    "tensor CHW of floats": lambda path: tensor(path).permute(2, 0, 1) / 255,
    "tensor of doubles": lambda path: tensor(path).double() / 255,
    "tensor with a gradient": lambda path: (tensor(path).float() / 255).requires_grad_(),
    "array of one path": lambda path: np.array(str(path)),
}


@pytest.mark.parametrize("form", ONE)
def test_one_image_in_any_form_is_one_row(
    form: str, path: Path, pixels: NDArray[np.uint8], classifier: Classifier
) -> None:
    (expected,) = classifier.predict(pixels)
    (found,) = classifier.predict(ONE[form](path))
    assert found.status == "ok"
    assert found.probabilities == expected.probabilities
    (listed,) = classifier.predict([ONE[form](path)]) if "array of one" not in form else (found,)
    assert listed.probabilities == expected.probabilities


@pytest.mark.parametrize("form", [form for form in ONE if "view of" not in form and form != "view"])
def test_decoding_takes_the_same(form: str, path: Path, pixels: NDArray[np.uint8]) -> None:
    if form != "array of one path":
        assert np.array_equal(np.asarray(decode(ONE[form](path))), pixels)


@pytest.mark.parametrize("form", ["str", "path", "path-like", "entry", "entry of bytes"])
def test_the_row_has_the_path(form: str, path: Path, classifier: Classifier) -> None:
    found = classifier.predict([ONE[form](path)])[0]
    assert str(path) in repr(found)


def test_half_precision_is_nearly_the_same(path: Path, pixels: NDArray[np.uint8]) -> None:
    for kind in (torch.float16, torch.bfloat16):
        found = np.asarray(decode((tensor(path) / 255).to(kind)), dtype=int)
        assert np.abs(found - pixels).max() <= (1 if kind == torch.float16 else 2)


def lazily(paths: list[Path]) -> Iterator[Any]:
    """Files that are closed as soon as the next is asked for."""
    for each in paths:
        with each.open("rb") as file:
            yield file


MANY: dict[str, Callable[[list[Path]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator of files": lazily,
    "map": lambda paths: map(str, paths),
    "values of a dict": lambda paths: {str(path): path for path in paths}.values(),
    "folder's entries": lambda paths: sorted(os.scandir(paths[0].parent), key=lambda e: e.name),
    "glob": lambda paths: sorted(paths[0].parent.glob("*.png")),
    "array of str": lambda paths: np.array([str(path) for path in paths]),
    "array of bytes": lambda paths: np.array([os.fsencode(path) for path in paths]),
    "array of objects": lambda paths: np.array(paths, dtype=object),
    "Series of str": lambda paths: pd.Series([str(path) for path in paths]),
    "Series of string type": lambda paths: pd.Series(list(map(str, paths)), dtype="string"),
    "Series of categories": lambda paths: pd.Series(list(map(str, paths)), dtype="category"),
    "Series of images": lambda paths: pd.Series([Image.open(path) for path in paths]),
    "Index": lambda paths: pd.Index([str(path) for path in paths]),
    "frame of paths": lambda paths: pd.DataFrame({"label": "ig", "path": list(map(str, paths))}),
    "frame of images": lambda paths: pd.DataFrame({"image": [p.read_bytes() for p in paths]}),
    "frame of one column": lambda paths: pd.DataFrame({"file": list(map(str, paths))}),
    "array NHWC": lambda paths: np.stack([np.asarray(Image.open(path)) for path in paths]),
    "tensor NHWC": lambda paths: torch.stack([tensor(path) for path in paths]),
    "tensor NCHW": lambda paths: torch.stack([tensor(path).permute(2, 0, 1) for path in paths]),
    "list of tensors": lambda paths: [tensor(path).permute(2, 0, 1) / 255 for path in paths],
}


@pytest.mark.parametrize("form", MANY)
def test_several_images_are_one_row_each(form: str, tmp_path: Path, classifier: Classifier) -> None:
    paths = []
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(noise).save(paths[-1])
    expected = [classifier.predict(str(path))[0].probabilities for path in paths]
    found = classifier.predict(MANY[form](paths))
    assert [prediction.status for prediction in found] == ["ok"] * 3
    for prediction, probabilities in zip(found, expected, strict=True):
        assert prediction.probabilities == pytest.approx(probabilities, abs=1e-6)


def test_arrow_columns_and_tables(path: Path, classifier: Classifier) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"path": [str(path)] * 2, "label": ["ig", "ig"]})
    assert len(classifier.predict(table)) == len(classifier.predict(table["path"])) == 2


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "number": (lambda _: 7, "int is no image; taken are: a path"),
    "nothing": (lambda _: None, "NoneType is no image"),
    "dict": (lambda path: {"image": path}, "dict is no image; give a list of its values"),
    "list of numbers": (lambda _: [1, 2, 3], "image 0: int is no image"),
    "list in a list": (lambda path: [[path]], "image 0: list is no image"),
    "nothing in a list": (lambda path: [path, None], "image 1: NoneType is no image"),
    "missing value": (lambda path: pd.Series([str(path), None]), "image 1: (NoneType|float) is"),
    "range": (lambda _: range(3), "image 0: int is no image"),
    "text file": (lambda path: path.with_suffix(".txt").open("w+"), r"binary mode \('rb'\)"),
    "image opened as text": (lambda path: path.open(), r"binary mode \('rb'\)"),
    "file to be written": (lambda path: path.with_suffix(".w").open("wb"), "no image file"),
    "tensor without data": (lambda _: torch.zeros(3, 8, 8, device="meta"), "as an array: "),
    "sparse tensor": (lambda _: torch.zeros(8, 8).to_sparse(), "as an array: .*to_dense"),
    "StringIO": (lambda _: io.StringIO("x"), r"binary mode \('rb'\)"),
    "archive": (lambda path: zipfile.ZipFile(path.with_suffix(".zip"), "w"), "no image file"),
    "vector": (lambda _: np.zeros(5), r"shape \(5,\) and type float64 holds no images"),
    "number of numpy": (lambda _: np.float64(1), r"shape \(\)"),
    "five axes": (lambda _: np.zeros((1, 1, 4, 4, 3)), r"shape \(1, 1, 4, 4, 3\)"),
    "batch in a list": (lambda _: [np.zeros((2, 8, 8, 3), "u1")], "image 0: an array of shape"),
    "Series of numbers": (lambda _: pd.Series([0.5, 1.0]), r"shape \(2,\)"),
    "frame": (
        lambda _: pd.DataFrame({"file": ["a"], "label": ["b"]}),
        "no column 'path' or 'image'; .* file, label",
    ),
    "tensor of a line": (lambda _: torch.zeros(9), r"shape \(9,\)"),
    "class": (lambda _: Image, "no image"),
    "dataset": (lambda path: [(path, "ig")], "image 0: tuple is no image"),
}


@pytest.mark.parametrize("form", WRONG)
def test_anything_else_is_a_type_error(form: str, path: Path, classifier: Classifier) -> None:
    given, words = WRONG[form]
    with pytest.raises(TypeError, match=words):
        classifier.predict(given(path))


def test_images_of_a_wrong_shape_cost_one_row(path: Path, classifier: Classifier) -> None:
    (found,) = classifier.predict(np.zeros((3, 40, 50), np.uint8))
    assert found.status.startswith("an array of shape (3, 40, 50)")
    (found,) = classifier.predict(tensor(path).float())  # 0..255
    assert found.status == "floating-point pixels must lie between 0 and 1"
    with pytest.raises(ImageError):
        decode(np.zeros((3, 40, 50), np.uint8))


def test_no_images_are_no_rows(classifier: Classifier) -> None:
    for nothing in ([], (), iter(()), np.zeros((0, 8, 8, 3), np.uint8), pd.Series([], dtype=str)):
        assert classifier.predict(nothing) == []
    for nothing in (np.zeros(0), torch.zeros(0), pd.DataFrame({"path": []}), pd.Series([])):
        assert classifier.predict(nothing) == []
