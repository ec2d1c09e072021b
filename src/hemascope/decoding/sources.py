"""decode(): a path, a file's bytes, a Pillow image or an array → an upright 8-bit RGB image."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from hemascope.decoding import jpeg, optional
from hemascope.decoding.colour import orientation_of, to_rgb
from hemascope.decoding.given import ImageSource, PlainSource, as_source
from hemascope.decoding.kinds import identify
from hemascope.decoding.limits import Reserve, check_cost, check_size, share_memory
from hemascope.decoding.metadata import check_pieces, without_metadata
from hemascope.decoding.pixels import image_from, refuse_dark
from hemascope.decoding.tiff_pages import read_tiff
from hemascope.errors import ImageError

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None  # type: ignore[assignment]

# The decoders that are ever used. Pillow has others that start a program, or guess by the suffix.
DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
if AvifImagePlugin is not None:
    DECODERS["AVIF"] = AvifImagePlugin.AvifImageFile

# Bytes per pixel that a decoder takes beside an RGB image's four, and a mode beside RGB.
OF_FORMAT = {"WEBP": 13, "AVIF": 14, "JPEG2000": 20, "GIF": 4}
OF_MODE = {"RGB": 0, "L": 1, "1": 1, "P": 1, "CMYK": 4, "RGBA": 13}
OTHER_MODE = 16
TRANSPARENT_COLOUR = 17  # an image without alpha, but with a colour that stands for none
TURNED = 4  # a copy
WHERE_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
MAX_SLOW = 1_500_000  # pixels of decoders written in Python: 2.7 s for a million of 16-bit PPM


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, and what must be said of it: which of a file's pages it is."""

    image: Image.Image
    notice: str = ""


def decode(source: ImageSource) -> Image.Image:
    """An image source as an upright 8-bit RGB image.

    Arrays are (H,W), (H,W,1), (H,W,3) or (H,W,4), of uint8, uint16, bool, or floats in 0..1.
    Grey, palette, alpha (laid on white), CMYK, Lab, 16-bit and EXIF-rotated images are converted,
    colours of a wide profile brought to sRGB. Raises ImageError where that cannot be done right,
    and TypeError for what is no image.
    """
    with decoded(source) as found:
        return found.image


@contextmanager
def decoded(source: ImageSource) -> Iterator[Decoded]:
    """The same as a context with the notice, in which the image's memory counts as used."""
    plain = as_source(source)
    with share_memory() as reserve:
        yield _decode(plain, reserve)


def _decode(source: PlainSource, reserve: Reserve) -> Decoded:
    try:
        if isinstance(source, np.ndarray):
            return Decoded(to_rgb(image_from(source)))
        if isinstance(source, Image.Image):
            return _from_opened(source, reserve)
        if isinstance(source, bytes):
            return _from_file(io.BytesIO(source), reserve)
        if "\0" in str(source):
            raise ImageError("no such file: a path cannot hold a zero byte")
        if not stat.S_ISREG(os.stat(source).st_mode):
            what = "a folder" if os.path.isdir(source) else "a pipe or a device"
            raise ImageError(f"{what}, not an image")
        with open(source, "rb") as file:
            return _from_file(file, reserve)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except OSError as error:  # Pillow's own have no number
        if error.errno is not None:
            raise ImageError(f"cannot be read: {error.strerror}") from None
        raise ImageError(f"damaged image: {_brief(error)}") from None
    except MemoryError:
        raise ImageError("too large for the memory that is left") from None
    except Exception as error:  # decoders raise nearly anything for damaged files
        raise ImageError(f"damaged image: {_brief(error)}") from None


def _brief(error: Exception) -> str:
    """A decoder's own words in one line, of which the first are enough."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _from_file(file: IO[bytes], reserve: Reserve) -> Decoded:
    kind = identify(file)
    file.seek(0)
    if kind == "TIFF":
        return Decoded(*read_tiff(file, reserve))
    if kind == "DICOM":
        return Decoded(to_rgb(optional.read_dicom(file, reserve)))
    if kind == "HEIF":
        return Decoded(to_rgb(optional.read_heif(file, reserve)))
    if kind not in DECODERS:
        raise ImageError(f"this version of Pillow has no decoder for {kind}")
    check_pieces(file, kind)
    file.seek(0)
    bits = _bits_said(file, kind)
    try:
        if kind == "JPEG2000" and bits is not None and not _is_grey(file):
            return Decoded(to_rgb(optional.read_jpeg_2000(file, bits, reserve)))
        image, orientation = _load(file, kind, reserve)
    except ImageError:
        raise
    except Exception:
        file.seek(0)
        stripped = without_metadata(kind, file.read())
        if stripped is None:
            raise
        content, profile = stripped
        image, orientation = _load(io.BytesIO(content), kind, lambda cost: None)
        if profile:
            image.info["icc_profile"] = profile
    if bits is not None and image.mode in ("RGB", "RGBA"):
        refuse_dark(image)  # of more than 8 bits, of which Pillow gives the upper ones
    return Decoded(to_rgb(image, orientation, bits))


def _is_grey(file: IO[bytes]) -> bool:
    """Whether a JPEG 2000 has no colours; those of more than 8 bits Pillow wraps around."""
    image = DECODERS["JPEG2000"](file)
    check_size(*image.size)
    file.seek(0)
    return image.mode.startswith(("L", "I"))


def _bits_said(file: IO[bytes], kind: str) -> int | None:
    """Bits of a sample that a PNG or JPEG 2000 says it uses; None for up to eight."""
    if kind not in ("PNG", "JPEG2000"):
        return None
    head = file.read(1024)
    file.seek(0)
    if kind == "JPEG2000":
        at = head.find(b"\xff\x4f\xff\x51")  # after 40 bytes of sizes comes the first sample's
        bits = (head[at + 42] & 127) + 1 if 0 <= at < len(head) - 42 else 8
    else:
        at = head.find(b"sBIT")
        bits = head[24] if at < 0 else head[at + 4] if head[24] == 16 else 8
    return bits if bits > 8 else None


def _load(file: IO[bytes], kind: str, reserve: Reserve) -> tuple[Image.Image, int]:
    """The image in a file as Pillow decodes it, and how it lies by its EXIF."""
    image = DECODERS[kind](file)
    check_size(*image.size)
    if getattr(image, "is_animated", False):
        raise ImageError("an animation of several frames; save the one to classify as a file")
    known = "exif" in image.info if kind == "PNG" else bool(WHERE_ORIENTATION & image.info.keys())
    orientation = orientation_of(image) if known else 1
    beside = OF_FORMAT.get(kind, 0) + OF_MODE.get(image.mode, OTHER_MODE)
    if "transparency" in image.info:
        beside = max(beside, TRANSPARENT_COLOUR)
    cost = image.width * image.height * (4 + beside + (TURNED if orientation > 1 else 0))
    if kind == "JPEG":
        cost += jpeg.coefficient_bytes(file, image)
    if image.tile and image.tile[0][0] in Image.DECODERS and image.width * image.height > MAX_SLOW:
        raise ImageError(
            f"too slow: {image.width}×{image.height} pixels in a form that takes seconds for a "
            "million; save it as PNG or TIFF"
        )
    reserve(cost)
    image.load()
    if kind == "JPEG":
        jpeg.check_whole(file, image)
    if not known and WHERE_ORIENTATION & image.info.keys():  # a PNG's may stand behind its pixels
        orientation = orientation_of(image)
        check_cost(cost + (TURNED * image.width * image.height if orientation > 1 else 0))
    return image, orientation


def _from_opened(image: Image.Image, reserve: Reserve) -> Decoded:
    """A Pillow image, which stays as it is; one that is not decoded yet is checked as its file."""
    if isinstance(image, ImageFile.ImageFile) and image.tile:
        if image.format == "TIFF" and image.fp is not None:
            return Decoded(*read_tiff(image.fp, reserve, image.tell()))
        if image.format not in (*DECODERS, "MPO"):
            raise ImageError(f"Pillow's {image.format} images are not opened; save it as PNG")
        check_size(*image.size)
        reserve(image.width * image.height * 24)
    return Decoded(to_rgb(image.copy(), orientation_of(image)))
