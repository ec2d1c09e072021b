"""SOURCES: the public data sets, one record each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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

SOURCES: dict[str, Source] = {
    source.name: source for source in (PBC, BLOODMNIST, BCCD, JIANGXI, WBCATT)
}
