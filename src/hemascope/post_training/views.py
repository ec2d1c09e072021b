"""Other views of a cell: turned, moved and recoloured, with numpy and pillow alone.

What differs between two images of one cell must not change its label, so a few labelled cells are
shown to the fit in several ways each. The ranges are those of the policy `any_rotation` in training
(`data/augment.py`, which needs torch).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from hemascope.arrays import FloatArray, ImageArray

SHIFT, SCALE, SHEAR = 0.08, 0.15, 8.0  # of the side; around 1; degrees
LIGHT, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.2, 0.04  # around 1; the last of the colour circle
GREY = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([GREY, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])


def draw_views(frame: ImageArray, n: int, size: int, seed: int = 0) -> ImageArray:
    """n views of a frame (F,F,3), (n,size,size,3), the same ones every time.

    A view shows as many pixels of the frame as it has itself, before it is scaled. Past the frame's
    edge the frame is mirrored.
    """
    random = np.random.default_rng(seed)
    margin = min(size // 2, len(frame) - 1)
    wide = Image.fromarray(np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), "reflect"))
    views = np.empty((n, size, size, 3), dtype=np.uint8)
    for view in views:
        linear = _draw_map(random)
        centre = wide.width / 2 + random.uniform(-SHIFT, SHIFT, 2) * size
        offset = centre - linear @ (size / 2, size / 2)
        (a, b), (d, e) = linear.tolist()
        rows = (a, b, offset[0], d, e, offset[1])
        turned = wide.transform(
            (size, size), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR
        )
        view[:] = _recolour(np.asarray(turned), random)
    return views


def _draw_map(random: np.random.Generator) -> FloatArray:
    """A random map (2,2) from a view's places to the frame's: rotation, mirroring, shear, scale."""
    angle = random.uniform(-math.pi, math.pi)
    slant = math.tan(math.radians(random.uniform(-SHEAR, SHEAR)))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mirrored = np.array([[random.choice([-1.0, 1.0]), 0.0], [0.0, 1.0]])
    scale = 1 / random.uniform(1 - SCALE, 1 + SCALE)
    return np.asarray(rotation @ np.array([[1.0, slant], [0.0, 1.0]]) @ mirrored * scale)


def _recolour(image: ImageArray, random: np.random.Generator) -> ImageArray:
    """An image (S,S,3) in another light, saturation, hue and contrast."""
    bright, saturation, contrast = (
        random.uniform(1 - x, 1 + x) for x in (LIGHT, SATURATION, CONTRAST)
    )
    angle = 2 * math.pi * random.uniform(-HUE, HUE)
    turn = np.eye(3)
    turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    hue = np.linalg.solve(TO_YIQ, turn @ TO_YIQ)
    saturate = saturation * np.eye(3) + (1 - saturation) * GREY
    pixels = image.astype(np.float32) @ (bright * hue @ saturate).T.astype(np.float32)
    pixels = np.clip(pixels, 0, 255)
    mean = np.float32((pixels @ GREY.astype(np.float32)).mean())
    return np.asarray(np.clip(mean + contrast * (pixels - mean), 0, 255).round(), dtype=np.uint8)
