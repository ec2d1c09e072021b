"""Which samples folders, lists and manifests name, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hemascope.errors import ManifestError
from hemascope.smear.samples import find_samples, read_samples


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of two small images, and the folder they are in as the present one."""
    for sample in ("one", "two"):
        (tmp_path / sample).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8), "white").save(tmp_path / sample / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_folder_is_a_sample(slides: Path) -> None:
    found = find_samples(["one", "two"])
    assert [sample.name for sample in found.samples] == ["one", "two"]
    assert found.samples[0].paths == ("one/0.png", "one/1.png")
    assert found.fields == 4


def test_a_list_is_a_sample_and_files_are_one(slides: Path) -> None:
    (slides / "slide 9.txt").write_text("one/0.png\ntwo/1.png\n")
    found = find_samples(["slide 9.txt", "one/1.png", "one/*.png"])
    assert [(sample.name, sample.paths) for sample in found.samples] == [
        ("slide 9", ("one/0.png", "two/1.png")),
        ("one", ("one/1.png", "one/0.png")),
    ]


def test_a_manifest_has_many_samples_with_totals(slides: Path) -> None:
    text = "path,sample,wbc\none/0.png,A,7.2\ntwo/0.png,B,\none/1.png,A,7.2\n"
    (slides / "samples.csv").write_text(text)
    first, second = find_samples(["samples.csv"]).samples
    assert (first.name, first.wbc, len(first.paths)) == ("A", 7.2, 2)
    assert (second.name, second.wbc) == ("B", None)


def test_a_total_is_of_one_sample(slides: Path) -> None:
    assert find_samples(["one"], 7.2).samples[0].wbc == 7.2
    with pytest.raises(ValueError, match="manifest with a column wbc"):
        find_samples(["one", "two"], 7.2)
    with pytest.raises(ValueError, match="10⁹/L"):
        find_samples(["one"], 7200)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ([], "no field was given"),
        (["nowhere"], "does not exist"),
        (["empty"], "holds no images"),
        (["empty.txt"], "lists no fields"),
        (["one", "other/one"], "two samples are called 'one'"),
    ],
)
def test_bad_inputs_are_refused_in_a_sentence(
    slides: Path, inputs: list[str], problem: str
) -> None:
    (slides / "empty").mkdir()
    (slides / "empty.txt").write_text("\n")
    (slides / "other").mkdir()
    (slides / "one").rename(slides / "other" / "one")
    (slides / "two").rename(slides / "one")
    with pytest.raises(ValueError, match=problem):
        find_samples(inputs)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path,label\none/0.png,x\n", "no column 'sample'"),
        ("path,sample\none/0.png,\n", "line 2: path and sample must both"),
        ("path,sample\none/0.png,A\none/0.png,B\n", r"listed a second time \(sample 'A'\)"),
        ("path,sample,wbc\none/0.png,A,5\none/1.png,A,6\n", "another wbc above"),
        ("path,sample,wbc\none/0.png,A,many\n", "line 2: wbc must be a white cell count"),
        ("path,sample\n", "lists no fields"),
        ("path,sample\nnowhere.png,A\n", "none of its 1 images is there"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(slides: Path, text: str, problem: str) -> None:
    (slides / "samples.csv").write_text(text)
    with pytest.raises((ManifestError, ValueError), match=problem):
        read_samples(Path("samples.csv"))


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_samples(tmp_path / "nowhere.csv")
