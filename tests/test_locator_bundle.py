"""A locator's bundle: exported only where it agrees, and refused where it is not what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hemascope.bundle.export_locator import compared_images, export_locator
from hemascope.bundle.locator_bundle import (
    LocatorBundle,
    LocatorCard,
    LocatorEngine,
    read_locator,
    write_locator,
)
from hemascope.data.augment import to_images
from hemascope.errors import BundleError
from hemascope.files import sha256_of
from hemascope.models.locator import LocatorNetwork
from hemascope.smear.records import KINDS

CARD = LocatorCard("tiny", KINDS, dict.fromkeys(KINDS, 0.3), 30.0, 4, 32.0, "", 0, "nothing")


@pytest.fixture(scope="module")
def network() -> LocatorNetwork:
    torch.manual_seed(0)
    return LocatorNetwork(width=8).eval()


@pytest.fixture(scope="module")
def bundle(network: LocatorNetwork) -> LocatorBundle:
    return export_locator(network, CARD)


@pytest.mark.slow
def test_graph_gives_what_the_network_gives(network: LocatorNetwork, bundle: LocatorBundle) -> None:
    engine = LocatorEngine(bundle, threads=1)
    for images in compared_images():
        with torch.inference_mode():
            expected = network(to_images(torch.from_numpy(images))).numpy()
        assert np.abs(engine.maps(images) - expected).max() < 1e-3


def test_card_says_what_was_exported(network: LocatorNetwork, bundle: LocatorBundle) -> None:
    assert bundle.card.model_sha256 == sha256_of(bundle.model)
    assert bundle.card.parameters == sum(p.numel() for p in network.parameters())


def test_what_is_written_is_read_again(bundle: LocatorBundle, tmp_path: Path) -> None:
    write_locator(bundle, tmp_path)
    assert read_locator(tmp_path) == bundle


def test_altered_and_missing_files_are_refused(bundle: LocatorBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"not a locator: cannot read card\.json"):
        read_locator(tmp_path)
    write_locator(bundle, tmp_path)
    (tmp_path / "locator.onnx").write_bytes(bundle.model + b"\0")
    with pytest.raises(BundleError, match=r"locator\.onnx is not the file that card\.json"):
        read_locator(tmp_path)
    (tmp_path / "card.json").write_text('{"name": "x"}')
    with pytest.raises(BundleError, match="not a valid LocatorCard"):
        read_locator(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "stride must be from 1 to 32, not 0"),
        ({"thresholds": {"white": 0.5}}, "thresholds must name each of the kinds"),
        ({"red_diameter": 1e9}, "red_diameter must be from 8 to 200"),
        ({"format": 9}, "locator format 9 is not known here"),
    ],
)
def test_cards_that_cannot_be(
    bundle: LocatorBundle, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        write_locator(replace(bundle, card=replace(bundle.card, **change)), tmp_path)  # type: ignore[arg-type]


def test_graphs_that_no_export_writes_are_refused(bundle: LocatorBundle) -> None:
    import onnx

    proto = onnx.load_from_string(bundle.model)
    proto.graph.node[-1].op_type = "Loop"
    strange = proto.SerializeToString()
    with pytest.raises(BundleError, match="holds the operator 'Loop', which no export writes"):
        LocatorEngine(replace(bundle, model=strange))


def test_maps_of_another_shape_are_refused(bundle: LocatorBundle) -> None:
    engine = LocatorEngine(replace(bundle, card=replace(bundle.card, stride=8)), threads=1)
    with pytest.raises(BundleError, match=r"gave maps of shape \(1, 7, 16, 16\), not \(1, 7, 8, 8"):
        engine.maps(np.zeros((1, 64, 64, 3), np.uint8))


def test_shipped_locator_is_small_and_whole() -> None:
    shipped = read_locator()
    assert len(shipped.model) <= 3_000_000
    assert shipped.card.parameters <= 2_000_000
    assert shipped.card.kinds == KINDS
