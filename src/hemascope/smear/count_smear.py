"""count_smear: the photographs of one smear → its differential count, in one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hemascope.errors import SampleError
from hemascope.inference.classifier import Classifier
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.locate import Locator
from hemascope.smear.naming import check_width, name_fields, probe_sample
from hemascope.smear.samples import Sample, check_total


def count_smear(
    fields: Iterable[str | Path],
    classifier: Classifier | None = None,
    locator: Locator | None = None,
    sample: str = "sample",
    wbc: float | None = None,
    um_per_pixel: float | None = None,
) -> DifferentialCount:
    """The differential count of the photographs of one smear.

    Parameters
    ----------
    fields
        Paths of the photographs, all of the same magnification.
    classifier
        What names the white cells; by default the model that comes with the package.
    locator
        What finds the cells; by default the one that comes with the package.
    sample
        What the smear is called.
    wbc
        The white cell count of the blood in 10⁹/L, for numbers in a volume.
    um_per_pixel
        How many micrometres a pixel is wide; by default the red cells tell it.

    Returns
    -------
    DifferentialCount
        Shares as counted and corrected with their intervals, what was not counted, and flags.
        `hemascope.smear.fhir.to_fhir` and `hemascope.smear.hl7.to_hl7` write it as messages.

    Raises
    ------
    SampleError
        For fields that cannot be counted; its text says why. It is a HemascopeError.
    ValueError
        For a total or a width of a pixel that cannot be.

    Examples
    --------
    >>> from pathlib import Path
    >>> from hemascope import count_smear
    >>> from hemascope.data.synthetic_fields import draw_fields
    >>> count = count_smear(draw_fields(Path("smear"), 2, overwrite=True), wbc=7.2)
    >>> count.fields, count.scale_source
    (2, 'red cells')
    """
    if wbc is not None:
        check_total(wbc, "wbc")
    if um_per_pixel is not None:
        check_width(um_per_pixel)
    classifier, locator = classifier or Classifier(), locator or Locator.from_bundle(threads=1)
    smear = Sample(sample, tuple(str(path) for path in fields), wbc)
    if not smear.paths:
        raise SampleError("no field was given")
    probe = probe_sample(smear, locator, um_per_pixel)
    if probe.refused:
        raise SampleError(probe.refused)
    pairs = [(sample, path) for path in smear.paths]
    named = name_fields(pairs, {sample: probe}, locator, classifier)
    options = CountOptions(um_per_pixel, locator_sha256=locator.card.model_sha256)
    return count_sample(sample, named, classifier.card, wbc, options)
