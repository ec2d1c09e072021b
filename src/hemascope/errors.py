"""The errors that are Hemascope's own. Each says in one sentence what, where and what to do.

    HemascopeError
    ├── ImageError        an image that cannot be used       (also a ValueError)
    ├── ManifestError     labelled images that cannot be used (also a ValueError)
    │   ├── LeakageError  an image is trained on and tested on
    │   └── UnknownClassError  a label is no class of the model
    ├── BundleError       a model that cannot be used        (also a ValueError)
    ├── SampleError       a smear that cannot be counted     (also a ValueError)
    ├── StorageError      storage that refuses               (also a ValueError)
    └── TrainingError     a run that cannot go on            (also a RuntimeError)

An argument that is out of range is a plain ValueError, as in Python itself. What goes on all the
same, but not as well as it could, is a HemascopeWarning.
"""

from __future__ import annotations


class HemascopeError(Exception):
    """Any error of Hemascope's own.

    Examples
    --------
    >>> import hemascope
    >>> try:
    ...     hemascope.open_manifest("nowhere.csv")
    ... except hemascope.HemascopeError as error:
    ...     print(error)
    nowhere.csv: cannot be read: No such file or directory
    """


class ImageError(HemascopeError, ValueError):
    """An image that cannot be used; its text says what is wrong with it.

    Examples
    --------
    >>> from hemascope import Classifier
    >>> Classifier().predict_proba(["nowhere.png"])
    Traceback (most recent call last):
        ...
    hemascope.errors.ImageError: nowhere.png: no such file
    """


class ManifestError(HemascopeError, ValueError):
    """A manifest that cannot be used; its text says what, where, and what to do.

    Examples
    --------
    >>> from pathlib import Path
    >>> from hemascope import open_manifest
    >>> _ = Path("cells.csv").write_text("path,label\\na.png,\\n")
    >>> open_manifest("cells.csv")
    Traceback (most recent call last):
        ...
    hemascope.errors.ManifestError: cells.csv, line 2: path and label must both be filled in
    """


class LeakageError(ManifestError):
    """The same image is in a split that is trained on and in one that is tested on."""


class UnknownClassError(ManifestError):
    """A label that is none of the model's classes."""


class BundleError(HemascopeError, ValueError):
    """A bundle that cannot be used; its text says which and why.

    Examples
    --------
    >>> from hemascope import Classifier
    >>> Classifier.from_pretrained("hemascope-0")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hemascope.errors.BundleError: 'hemascope-0' is no folder, and no bundle of that name ...
    """


class SampleError(HemascopeError, ValueError):
    """A smear that cannot be counted; its text says why and what to do."""


class StorageError(HemascopeError, ValueError):
    """Storage that refuses or cannot be reached; its text says which and why."""


class HemascopeWarning(UserWarning):
    """What goes on all the same; its text says what is not as it could be, and what to do."""


class TrainingError(HemascopeError, RuntimeError):
    """A run that cannot go on; its text says why and what to do."""
