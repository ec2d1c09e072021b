"""Any Pillow image → upright RGB: orientation, colour profile, palette, alpha, ink and Lab."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import ExifTags, Image, ImageCms

from hemascope.decoding.pixels import image_from, narrow
from hemascope.errors import ImageError

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
MAX_PROFILE = 16_000_000
SAME_COLOUR = 4  # levels: profiles that change no colour by more are sRGB's own variants


def orientation_of(image: Image.Image) -> int:
    """How the image lies by its EXIF: 1 is upright, and taken where the EXIF is unreadable."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the EXIF of a camera or an editor may hold anything
        return 1
    return orientation if orientation in UPRIGHT else 1


def to_rgb(
    image: Image.Image, orientation: int = 1, bits: int | None = None, min_is_white: bool = False
) -> Image.Image:
    """A decoded image as upright RGB, in sRGB's colours; alpha is laid on white.

    `bits` and `min_is_white` are those of 16-bit pixels, as in `image_from`.
    """
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    transparent = image.mode in TRANSPARENT or "transparency" in image.info
    if image.mode == "RGB" and not transparent and "icc_profile" not in image.info:
        return image
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image)
        transparent = False  # one 16-bit level as transparent colour: not one of a image
        image = image_from(
            narrow(pixels) if pixels.dtype.kind == "i" else pixels, bits, min_is_white
        )
    if image.mode == "La":  # grey multiplied by its alpha, which Pillow converts to this only
        image = image.convert("LA")
    if transparent and image.mode != "RGBA":  # which `convert` would copy
        image = image.convert("RGBA")
    elif image.mode == "P":
        image = image.convert("RGB")
    if profile:
        image = _in_srgb(image, profile)
    if image.mode == "RGB":
        return image
    return _on_white(image) if image.mode == "RGBA" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (0, 0):  # an unused channel: the colours are the image
        colours = image.convert("RGB")
        if colours.getextrema() == ((0, 0),) * 3:
            raise ImageError("every pixel is transparent, and no colour is left")
        return colours
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB's colours; as it is where its profile is sRGB's, unreadable or unfit."""
    transform = _transform(profile, image.mode) if len(profile) <= MAX_PROFILE else None
    if transform is None:
        return image
    if image.mode == transform.output_mode:  # the image is ours, and a second would cost as much
        ImageCms.applyTransform(image, transform, inPlace=True)
        return image
    return ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile's colours to sRGB's, or None where that changes nothing to be seen."""
    out = "RGBA" if mode == "RGBA" else "RGB"
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, out)
    except Exception:  # metadata: a profile that is damaged, or of another kind of image
        return None
    if mode == "CMYK":
        return transform
    colours = list(product(range(0, 256, 51), repeat=3))
    probe = Image.new("RGB", (len(colours), 1))
    probe.putdata(colours)
    probe = probe.convert(mode)
    there = ImageCms.applyTransform(probe, transform)
    if there is None:
        return None
    change = np.asarray(there.convert("RGB"), int) - np.asarray(probe.convert("RGB"), int)
    return transform if int(np.abs(change).max()) > SAME_COLOUR else None
