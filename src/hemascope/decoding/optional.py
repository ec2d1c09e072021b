"""What the extra `formats` reads: more kinds of TIFF, DICOM photographs and HEIC."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from PIL import Image

from hemascope.decoding.limits import Reserve, check_size
from hemascope.decoding.pixels import Pixels, image_from, narrow
from hemascope.decoding.tiff import FLOAT, GREY, JPEG, RGB, YCBCR, Page
from hemascope.decoding.tiff_header import check_segments
from hemascope.errors import ImageError

INSTALL = "pip install 'hemascope[formats]'"
JPEG_2000, WEBP, JPEG_XL, LERC = (33003, 33005, 34712), (34927, 50001), (50002, 52546), (34887,)
PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)  # what they decode to is bounded by the page
GREY_DICOM = ("MONOCHROME1", "MONOCHROME2")
MARGIN = 4096  # a tile may be larger than the page by this
INFLATED = b"1.2.840.10008.1.2.1.99"  # DICOM that is deflated as a whole, of any size


def read_tiff_page(file: IO[bytes], page: Page) -> Image.Image:
    """A page that Pillow does not read right, by tifffile; not yet turned upright.

    Raises ImageError without the extra, and for kinds whose pixels' meaning is not sure.
    """
    what = _describe(page)
    known = PLAIN + JPEG_2000 + WEBP + JPEG_XL + LERC + (JPEG,)
    coloured = page.photometric == RGB and page.samples >= 3
    coloured = coloured or (page.photometric == YCBCR and page.compression == JPEG)
    grey = page.photometric in GREY and page.samples == 1
    if page.compression not in known or not (coloured or grey):
        raise ImageError(f"{what}: not a kind that can be read; save it as 8-bit RGB")
    try:
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError:
        raise ImageError(f"{what}: reading it needs {INSTALL}") from None
    _check_sizes(file, page)
    log = logging.getLogger("tifffile")
    if not log.handlers:
        log.addHandler(logging.NullHandler())  # its doubts about a header are not for the terminal
    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        array = np.asarray(opened.pages[page.index].asarray(maxworkers=1))
    if page.planar:
        array = np.moveaxis(array, 0, -1)
    extra = page.tags.get(338, (0,))
    if coloured:
        array = array[..., : 4 if page.samples > 3 and extra[0] in (1, 2) else 3]
    if array.dtype.kind in "iu" and array.dtype.itemsize != 1 and array.dtype != np.uint16:
        array = _narrow_wide(array)
    image = image_from(array, page.used_bits, page.min_is_white)
    if page.tags.get(34675):
        image.info["icc_profile"] = page.tags[34675]
    return image


def _describe(page: Page) -> str:
    number = "float" if page.sample_format == FLOAT else "bit"
    kind = f"{page.bits}-bit float" if number == "float" else f"{page.bits}-bit"
    planes = ", planar" if page.planar else ""
    return f"a TIFF of {page.samples} × {kind}{planes}, compression {page.compression_name}"


def _narrow_wide(array: Pixels) -> Pixels:
    """32-bit and signed integers as 16 bits; those that use the upper bits keep these."""
    if array.dtype == np.uint32 and int(array.max()) >= 1 << 30:
        return (array >> np.uint32(16)).astype(np.uint16)
    return narrow(array)


def _check_sizes(file: IO[bytes], page: Page) -> None:
    """Raises ImageError if a strip or tile says that it is larger than the page's.

    The decoders believe the segment: a tile of 100 pixels may hold an image of a billion.
    """
    segments, sizes = check_segments(file, page), _SIZES.get(page.compression)
    if sizes is None:
        return
    columns, rows = page.first(322, page.width), page.first(323, page.first(278, page.height))
    columns, rows = min(columns, page.width + MARGIN), min(rows, page.height + MARGIN)
    for offset, length in segments:
        file.seek(offset)
        width, height = sizes(file.read(min(length, 65_536)))
        if not (0 < width <= columns and 0 < height <= rows):
            raise ImageError(
                f"damaged image: a strip or tile of {width}×{height} pixels instead of "
                f"{columns}×{rows}"
            )


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[at + n : at + n + 2], "big") for n in (5, 7))
            return width, height
        at += 2 + length
    raise ImageError("damaged image: a JPEG strip without a size")


def _size_of_jpeg_2000(data: bytes) -> tuple[int, int]:
    at = data.find(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = (
        int.from_bytes(data[at + n : at + n + 4], "big") for n in (0, 4, 8, 12)
    )
    return right - left, bottom - top


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """From the header of a lossy, lossless or extended WebP."""
    kind, body = data[12:16], data[20:40]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(body[n : n + 2], "little") & 0x3FFF for n in (6, 8))
    return width, height


def _size_of_jpeg_xl(data: bytes) -> tuple[int, int]:
    """From the size header, whose bits run from the lowest up (ISO 18181-1, D.2)."""
    start = data.find(b"\xff\x0a")
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = take(1)
    height, ratio = side(small), take(3)
    if ratio == 0:
        return side(small), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


def _size_of_lerc(data: bytes) -> tuple[int, int]:
    if data[:6] != b"Lerc2 ":
        raise ImageError("a TIFF whose LERC strips are of another version than 2")
    at = 14 if int.from_bytes(data[6:10], "little") >= 3 else 10
    rows, columns = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4))
    return columns, rows


_SIZES: dict[int, Callable[[bytes], tuple[int, int]]] = {
    JPEG: _size_of_jpeg,
    **dict.fromkeys(JPEG_2000, _size_of_jpeg_2000),
    **dict.fromkeys(WEBP, _size_of_webp),
    **dict.fromkeys(JPEG_XL, _size_of_jpeg_xl),
    **dict.fromkeys(LERC, _size_of_lerc),
}


def read_jpeg_2000(file: IO[bytes], bits: int, reserve: Reserve) -> Image.Image:
    """A JPEG 2000 of colours of more than 8 bits."""
    try:
        import imagecodecs
    except ImportError:
        raise ImageError(f"a JPEG 2000 of {bits}-bit colours: reading it needs {INSTALL}") from None
    content = file.read()
    width, height = _size_of_jpeg_2000(content)
    check_size(width, height)
    reserve(width * height * 34 + len(content))
    return image_from(np.asarray(imagecodecs.jpeg2k_decode(content)), bits)


def read_dicom(file: IO[bytes], reserve: Reserve) -> Image.Image:
    """The photograph in a DICOM file: one frame of visible light, RGB, YCbCr, palette or grey."""
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, pixel_array
    except ImportError:
        raise ImageError(f"a DICOM file: reading it needs {INSTALL}") from None
    if INFLATED in file.read(2048):
        raise ImageError("a DICOM file deflated as a whole; save it with another transfer syntax")
    file.seek(0)
    header = pydicom.dcmread(file, stop_before_pixels=True)
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise ImageError(f"a DICOM file of {frames} frames; save the one to classify as a file")
    if "Rows" not in header or "Columns" not in header:
        raise ImageError("a DICOM file without an image")
    width, height, samples = header.Columns, header.Rows, header.SamplesPerPixel
    check_size(width, height)
    reserve(width * height * (samples * header.BitsAllocated // 8 * 4 + 8))
    file.seek(0)
    dataset = pydicom.dcmread(file)
    _check_frame(dataset)
    photometric = header.PhotometricInterpretation
    array = np.asarray(pixel_array(dataset, raw=False))
    bits = int(header.BitsStored)
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
        bits = 16
        if int(array.max()) < 256:
            array = array.astype(np.uint8)
    elif photometric in GREY_DICOM and array.dtype.kind == "i":
        array, bits = narrow(array), bits - 1
    image = image_from(array, bits if bits > 8 else None, photometric == "MONOCHROME1")
    path = dataset.get("OpticalPathSequence") or [dataset]
    if "ICCProfile" in path[0]:
        image.info["icc_profile"] = bytes(path[0].ICCProfile)
    return image


def _check_frame(dataset: Any) -> None:
    """Raises ImageError for an encapsulated frame that says it is larger than the image."""
    from pydicom.encaps import get_frame

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)[:65_536]
    size = None
    if frame[:3] == b"\xff\xd8\xff":
        size = _size_of_jpeg(frame)
    elif b"\xff\x4f\xff\x51" in frame:
        size = _size_of_jpeg_2000(frame)
    if size is not None and size != (dataset.Columns, dataset.Rows):
        raise ImageError(f"damaged image: a frame of {size[0]}×{size[1]} pixels")


def read_heif(file: IO[bytes], reserve: Reserve) -> Image.Image:
    """The main image of a HEIC or HEIF file, already upright."""
    try:
        import pi_heif
    except ImportError:
        raise ImageError(f"a HEIC file: reading it needs {INSTALL}") from None
    opened = pi_heif.open_heif(io.BytesIO(file.read()))
    width, height = opened.size
    check_size(width, height)
    reserve(width * height * 16)
    image: Image.Image = opened.to_pillow()
    image.info.pop("exif", None)
    return image
