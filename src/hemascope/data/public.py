"""SOURCES: the public data sets, one record each; and BloodMNIST, unpacked into image files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from hemascope.errors import ManifestError


@dataclass(frozen=True)
class Source:
    """A public data set: where it is, what it holds, how to cite it.

    `address` is the landing page. `classes` maps the set's own names of its classes to ours; a
    class that ours have no place for is left out. `images` counts the whole published set.
    `md5` maps the names of its files to their checksums, where the publisher gives any.
    """

    name: str
    title: str
    address: str
    licence: str
    citation: str
    images: int
    classes: Mapping[str, str]
    md5: Mapping[str, str] = field(default_factory=dict)


_FIVE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")

PBC = Source(
    name="pbc",
    title="A dataset for microscopic peripheral blood cell images (Hospital Clínic, Barcelona)",
    address="https://doi.org/10.17632/snkd93bnjr.1",
    licence="CC BY 4.0",
    citation="Acevedo et al., A dataset of microscopic peripheral blood cell images for "
    "development of automatic recognition systems, Data in Brief 30 (2020) 105474",
    images=17_092,
    classes={name: name for name in (*_FIVE, "erythroblast", "ig", "platelet")},
)

BLOODMNIST = Source(
    name="bloodmnist",
    title="BloodMNIST: the images of PBC, their centre cut out and scaled down",
    address="https://doi.org/10.5281/zenodo.10519652",
    licence="CC BY 4.0",
    citation="Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D "
    "biomedical image classification, Scientific Data 10 (2023) 41",
    images=17_092,
    # In the order of the set's class numbers.
    classes={
        "basophil": "basophil",
        "eosinophil": "eosinophil",
        "erythroblast": "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)": "ig",
        "lymphocyte": "lymphocyte",
        "monocyte": "monocyte",
        "neutrophil": "neutrophil",
        "platelet": "platelet",
    },
    md5={
        "bloodmnist.npz": "7053d0359d879ad8a5505303e11de1dc",
        "bloodmnist_64.npz": "2b94928a2ae4916078ca51e05b6b800b",
        "bloodmnist_128.npz": "adace1e0ed228fccda1f39692059dd4c",
        "bloodmnist_224.npz": "b718ff6835fcbdb22ba9eacccd7b2601",
    },
)

BCCD = Source(
    name="bccd",
    title="BCCD: 364 smear fields with boxes around red cells, white cells and platelets",
    address="https://github.com/Shenggan/BCCD_Dataset",
    licence="MIT",
    citation="Shenggan, BCCD Dataset, 2017; images and annotations by cosmicad and akshaylamba",
    images=364,
    classes={"Platelets": "platelet"},  # RBC and WBC are no classes of ours
)

JIANGXI = Source(
    name="jiangxi",
    title="White blood cells with masks, Jiangxi Tecom Science Corporation (dataset 1)",
    address="https://github.com/zxaoyou/segmentation_WBC",
    licence="GPL-3.0",
    citation="Zheng et al., Fast and robust segmentation of white blood cell images by "
    "self-supervised learning, Micron 107 (2018) 55-71",
    images=300,
    classes={
        "1": "neutrophil",
        "2": "lymphocyte",
        "3": "monocyte",
        "4": "eosinophil",
        "5": "basophil",
    },
)

MUNICH = Source(
    name="munich",
    title="Single cells of the Munich AML Morphology Dataset",
    address="https://doi.org/10.7937/tcia.2019.36f5o9ld",
    licence="CC BY 3.0",
    citation="Matek et al., Human-level recognition of blast cells in acute myeloid leukaemia with "
    "convolutional neural networks, Nature Machine Intelligence 1 (2019) 538-544",
    images=18_365,
    # Blasts (MYO, MOB), smudge cells (KSC) and atypical lymphocytes (LYA) are no classes of ours.
    classes={
        "BAS": "basophil",
        "EOS": "eosinophil",
        "EBO": "erythroblast",
        "PMO": "ig",
        "PMB": "ig",
        "MYB": "ig",
        "MMZ": "ig",
        "LYT": "lymphocyte",
        "MON": "monocyte",
        "NGS": "neutrophil",
        "NGB": "neutrophil",
    },
)

WBCATT = Source(
    name="wbcatt",
    title="WBCAtt: eleven attributes of form and colour for the white blood cells of PBC",
    address="https://github.com/apple2373/wbcatt",
    licence="MIT",
    citation="Tsutsui, Pang and Wen, WBCAtt: A white blood cell dataset annotated with detailed "
    "morphological attributes, NeurIPS 2023, arXiv:2306.13531",
    images=10_298,
    classes={name.capitalize(): name for name in _FIVE},
)

DRAASLAN = Source(
    name="draaslan",
    title="Blood cell detection dataset: 100 smear fields with boxes around red and white cells",
    address="https://github.com/draaslan/blood-cell-detection-dataset",
    licence="MIT",
    citation="Aslan, Blood Cell Detection Dataset, 2020; boxes as in Gan et al., TXL-PBC, 2024",
    images=100,
    classes={},  # RBC and WBC are no classes of ours
)

CHULA = Source(
    name="chula",
    title="Chula RBC-12: smear fields with points on red cells of twelve kinds",
    address="https://github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset",
    licence="MIT",
    citation="Naruenatthanaset et al., Red Blood Cell Segmentation with Overlapping Cell "
    "Separation and Classification on Imbalanced Dataset, arXiv:2012.01321 (2021)",
    images=738,
    classes={},  # kinds of red cells are no classes of ours
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (PBC, BLOODMNIST, BCCD, JIANGXI, MUNICH, WBCATT, DRAASLAN, CHULA)
}


def unpack_bloodmnist(
    npz: Path, folder: Path, progress: ProgressCallback | None = None
) -> Manifest:
    """Writes BloodMNIST's images into class folders as PNG, and a manifest of them beside.

    `npz` is the published file of any size: bloodmnist.npz (28 pixels a side), bloodmnist_64.npz,
    bloodmnist_128.npz or bloodmnist_224.npz; splits are as published. The manifest, named like
    `npz`, is written last: where it is there already, it is read and nothing is written. Raises
    ManifestError for another file, a damaged one, or without the medmnist package.
    """
    table = folder / f"{npz.stem}.csv"
    if table.exists():
        return read_manifest(table)
    if npz.name not in BLOODMNIST.md5 or not npz.is_file():
        raise ManifestError(
            f"{npz}: no such file, or not one of {', '.join(BLOODMNIST.md5)}; "
            f"they are at {BLOODMNIST.address}"
        )
    labels = list(BLOODMNIST.classes.values())
    rows: list[ManifestRow] = []
    for split in ("train", "val", "test"):
        images, targets = _bloodmnist(npz, split)
        for number, (image, target) in enumerate(zip(images, targets.ravel(), strict=True)):
            label = labels[target]
            path = folder / label / f"{npz.stem}_{split}_{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            rows.append(ManifestRow(path.relative_to(folder).as_posix(), label, split=split))
            if progress is not None:
                progress(len(rows), BLOODMNIST.images)
    manifest = Manifest(folder, tuple(rows))
    write_manifest(manifest, table)
    return manifest


def _bloodmnist(npz: Path, split: str) -> tuple[ImageArray, NDArray[np.integer[Any]]]:
    """The images (N,S,S,3) of a split and their class numbers (N,1)."""
    try:
        from medmnist import BloodMNIST
    except ImportError:
        raise ManifestError(
            f"{npz}: to read it, install medmnist: pip install 'hemascope[medmnist]'"
        ) from None
    size = int(npz.stem.partition("_")[2] or 28)
    try:
        data = BloodMNIST(split, root=str(npz.parent), size=size, download=False)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ManifestError(f"{npz}: damaged, download it again: {error}") from None
    return data.imgs, data.labels
