"""TIFF, DICOM and HEIC: every kind gives the right pixels, or one sentence that says why not."""

from __future__ import annotations

import base64
import io
import sys
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from hemascope.decoding import ImageError, decode, decoded, optional

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 40, 48
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
WIDE = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
SMOOTH = np.asarray(Image.fromarray(RGB[:5, :6]).resize((WIDTH, HEIGHT)))
WHOLE_FILE = {"byteorder", "bigtiff", "imagej", "ome"}
Array = NDArray[Any]


def tiff(array: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    first = {
        key: options.pop(key) for key in ("byteorder", "bigtiff", "imagej", "ome") if key in options
    }
    with tifffile.TiffWriter(file, **first) as writer:
        writer.write(
            array, **({} if first.keys() & {"imagej", "ome"} else {"metadata": None}) | options
        )
    return file.getvalue()


def pages(*arrays: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for array in arrays:
            writer.write(array, metadata=None, **options)
    return file.getvalue()


def planes(array: Array) -> Array:
    return np.moveaxis(array, 2, 0).copy()


def pixels(content: bytes) -> Array:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def notice(content: bytes) -> str:
    with decoded(content) as found:
        return found.notice


def refused(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(content)
    assert "\n" not in str(caught.value)


def three(grey: Array) -> Array:
    return np.repeat(grey[:, :, None], 3, axis=2)


LOSSLESS = (None, "lzw", "deflate", "packbits", "zstd", "lzma")
FORMS = list(product("<>", (False, True), (None, (16, 16)), LOSSLESS))


@pytest.mark.parametrize(("byteorder", "bigtiff", "tile", "compression"), FORMS)
def test_every_form_of_tiff(
    byteorder: Any, bigtiff: bool, tile: tuple[int, int] | None, compression: str | None
) -> None:
    form = {"byteorder": byteorder, "bigtiff": bigtiff, "tile": tile, "compression": compression}
    colour = form | {"photometric": "rgb"}
    separate = colour | {"planarconfig": "separate"}
    white = form | {"photometric": "miniswhite"}
    assert np.array_equal(pixels(tiff(RGB, **colour)), RGB)
    assert np.array_equal(pixels(tiff(planes(RGB), **separate)), RGB)
    assert np.array_equal(pixels(tiff(WIDE, **colour)), WIDE >> 8)
    assert np.array_equal(pixels(tiff(planes(WIDE), **separate)), WIDE >> 8)
    assert np.array_equal(pixels(tiff(GREY, **form)), three(GREY))
    assert np.array_equal(pixels(tiff(GREY, **white)), three(255 - GREY))
    grey = WIDE[:, :, 0]
    assert np.array_equal(pixels(tiff(grey, **form)), three(grey >> 8))
    assert np.array_equal(pixels(tiff(grey, **white)), three(255 - (grey >> 8)))
    assert np.array_equal(
        pixels(tiff(grey > 9999, photometric="minisblack", **form)), three(255 * (grey > 9999))
    )
    signed = (grey // 2).astype(np.int16)
    assert np.array_equal(pixels(tiff(signed, **form)), three(signed >> 7))
    wider = WIDE.astype(np.uint32)
    assert np.array_equal(pixels(tiff(wider << 16, **colour)), WIDE >> 8)
    assert np.array_equal(pixels(tiff(wider, **colour)), WIDE >> 8)
    assert np.array_equal(pixels(tiff(grey.astype(np.int32), **form)), three(grey >> 8))
    for kind in (np.float32, np.float64, np.float16):
        share = (RGB / 255).astype(kind)
        assert np.array_equal(pixels(tiff(share, **colour)), RGB)
        assert np.array_equal(pixels(tiff(planes(share), **separate)), RGB)
        assert np.array_equal(pixels(tiff(share[:, :, 0], **form)), three(GREY))


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_predictors(compression: str, byteorder: Any) -> None:
    form = {"compression": compression, "byteorder": byteorder, "predictor": True}
    assert np.array_equal(pixels(tiff(RGB, photometric="rgb", **form)), RGB)
    assert np.array_equal(pixels(tiff(WIDE, photometric="rgb", **form)), WIDE >> 8)
    assert np.array_equal(pixels(tiff(WIDE[:, :, 0], **form)), three(WIDE[:, :, 0] >> 8))
    share = (GREY / 255).astype(np.float32)
    assert np.array_equal(pixels(tiff(share, **form)), three(GREY))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    ("compression", "options"),
    [
        ("jpeg2000", {"reversible": True, "level": 0}),
        ("jpegxl", {"lossless": True}),
        ("webp", {"lossless": True}),
        ("lerc", {}),
    ],
)
def test_the_codecs_of_the_extra(
    compression: str, options: dict[str, Any], tile: tuple[int, int] | None
) -> None:
    form = {"compression": compression, "compressionargs": options, "tile": tile}
    assert np.array_equal(pixels(tiff(RGB, photometric="rgb", **form)), RGB)


def test_jpeg_in_tiff() -> None:
    for sampling in ((1, 1), (2, 1), (2, 2)):
        file = tiff(SMOOTH, photometric="rgb", compression="jpeg", subsampling=sampling)
        assert pixels(file) == pytest.approx(SMOOTH.astype(float), abs=45)
    page = tifffile.TiffFile(io.BytesIO(file)).pages[0]
    length = page.databytecounts[0]
    at = file.find(length.to_bytes(4, "little"))
    refused(file[:at] + (length // 2).to_bytes(4, "little") + file[at + 4 :], "damaged")
    refused(file[: page.dataoffsets[0] + length // 2], "damaged|cannot")


@pytest.mark.parametrize("compression", [None, "lzw", "packbits", "deflate"])
def test_ycbcr_in_tiff(compression: str | None) -> None:
    stored = Image.fromarray(SMOOTH).convert("YCbCr")
    file = tiff(np.asarray(stored), photometric="ycbcr", compression=compression)
    expected = np.asarray(stored.convert("RGB"))
    assert pixels(file).astype(int) == pytest.approx(expected.astype(int), abs=1)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_grey_with_alpha(kind: str) -> None:
    half = np.dstack([GREY // 2, np.full_like(GREY, 128)])
    share = half[:, :, 0] / 128 if kind == "assocalpha" else half[:, :, 0] / 255
    file = tiff(half, photometric="minisblack", planarconfig="contig", extrasamples=[kind])
    expected = 255 * (np.clip(share, 0, 1) * 128 / 255 + 127 / 255)
    assert pixels(file).astype(float) == pytest.approx(three(expected), abs=2)


def test_kinds_whose_meaning_is_not_sure_are_refused() -> None:
    subsampled = tiff(RGB, photometric="ycbcr").replace(
        b"\x12\x02\3\0\2\0\0\0\1\0\1\0", b"\x12\x02\3\0\2\0\0\0\2\0\2\0"
    )
    refused(subsampled, "save it as 8-bit RGB")
    refused(tiff(planes(RGB), photometric="cielab", planarconfig="separate"), "save it as")
    refused(tiff(WIDE, photometric="cielab"), "save it as")
    refused(tiff((RGB / 255.0 * 300).astype(np.float32), photometric="rgb"), "between 0 and 1")
    refused(tiff(RGB, photometric="rgb", compression="png"), "PNG.*save it as")


def test_without_the_extra_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tiff(planes(WIDE), photometric="rgb", planarconfig="separate")
    jpeg_2000 = tiff(RGB, photometric="rgb", compression="jpeg2000")
    sixteen = imagecodecs.jpeg2k_encode(WIDE)
    for module in ("tifffile", "imagecodecs", "pydicom", "pi_heif"):
        monkeypatch.setitem(sys.modules, module, None)
    refused(jpeg_2000, r"JPEG 2000: reading it needs pip install 'hemascope\[formats\]'")
    refused(wide, r"3 × 16-bit, planar.*hemascope\[formats\]")
    refused(sixteen, r"16-bit colours.*hemascope\[formats\]")
    refused(bytes(128) + b"DICM" + bytes(90), r"DICOM.*hemascope\[formats\]")
    refused(b"\0\0\0\x18ftypheic" + bytes(60), r"HEIC.*hemascope\[formats\]")


# Bits that are used


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_12_bits_in_16_are_scaled_by_what_the_file_tells(byteorder: Any) -> None:
    grey = RNG.integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    colour = RNG.integers(0, 4096, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    told = {"byteorder": byteorder, "extratags": [(281, "H", 1, 4095, True)]}
    assert np.array_equal(pixels(tiff(grey, **told)), three(grey >> 4))
    three_told = {"byteorder": byteorder, "extratags": [(281, "H", 3, (4095,) * 3, True)]}
    assert np.array_equal(pixels(tiff(colour, photometric="rgb", **three_told)), colour >> 4)
    ome = '<OME><Image><Pixels SignificantBits="12" SizeC="1"/></Image></OME>'
    assert np.array_equal(pixels(tiff(grey, description=ome)), three(grey >> 4))
    shown = "ImageJ=1.54f\nmin=0.0\nmax=4095.0\n"
    assert np.array_equal(pixels(tiff(grey, description=shown)), three(grey >> 4))
    refused(tiff(grey), "nearly black")
    refused(tiff(colour, photometric="rgb"), "nearly black")
    full = WIDE[:, :, 0]
    assert np.array_equal(pixels(tiff(full, **told)), three(full >> 8))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits(bits: int) -> None:
    grey = RNG.integers(0, 1 << bits, (HEIGHT, WIDTH), dtype=np.uint16)
    assert np.array_equal(pixels(tiff(grey, bitspersample=bits)), three(grey >> (bits - 8)))


def test_packed_12_bits() -> None:
    grey = RNG.integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    packed = np.empty((HEIGHT, WIDTH // 2, 3), np.uint8)
    first, second = grey[:, ::2], grey[:, 1::2]
    packed[:, :, 0], packed[:, :, 2] = first >> 4, second & 255
    packed[:, :, 1] = ((first & 15) << 4) | (second >> 8)
    file = bytearray(tiff(packed.reshape(HEIGHT, -1)))
    for tag, old, new in ((256, WIDTH * 3 // 2, WIDTH), (258, 8, 12)):
        at = file.find(tag.to_bytes(2, "little") + b"\x03\0\1\0\0\0")
        at = at if at >= 0 else file.find(tag.to_bytes(2, "little") + b"\x04\0\1\0\0\0")
        assert file[at + 8 : at + 10] == old.to_bytes(2, "little")
        file[at + 8 : at + 10] = new.to_bytes(2, "little")
    assert np.array_equal(pixels(bytes(file)), three(grey >> 4))


def test_a_palette_of_8_or_16_bits() -> None:
    colours = RNG.integers(1, 256, (3, 256), dtype=np.uint16)
    expected = colours.T[GREY].astype(np.uint8)
    for palette in (colours * 257, colours):
        assert np.array_equal(pixels(tiff(GREY, photometric="palette", colormap=palette)), expected)


# Pages


THUMBNAIL = np.asarray(Image.fromarray(RGB).resize((12, 10)))
BLANK = np.full_like(RGB, 250)


@pytest.mark.parametrize(
    ("file", "page"),
    [
        (pages(THUMBNAIL, RGB), "page 2 of 2"),
        (pages(RGB, THUMBNAIL), "page 1 of 2"),
        (pages(BLANK, RGB), "page 2 of 2"),
        (pages(np.full((99, 99, 3), 255, np.uint8), THUMBNAIL, RGB), "page 3 of 3"),
        (pages(RGB, *[THUMBNAIL] * 3), "page 1 of 4"),
    ],
)
def test_the_page_that_is_the_picture_is_read_and_said(file: bytes, page: str) -> None:
    assert np.array_equal(pixels(file), RGB)
    assert notice(file) == f"{page} was read"


def test_pages_that_say_what_they_are() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB[::-1], subfiletype=1, metadata=None)
        writer.write(RGB[:, ::-1, 0] > 9, subfiletype=4, photometric="mask", metadata=None)
        writer.write(RGB, metadata=None)
    assert np.array_equal(pixels(file.getvalue()), RGB)
    assert notice(file.getvalue()) == "page 3 of 3 was read"
    assert np.array_equal(pixels(tiff(RGB, photometric="rgb", subfiletype=1)), RGB)
    raw = tiff(THUMBNAIL, photometric="rgb", subfiletype=1, subifds=1)
    refused(raw, "camera's raw file|damaged")


@pytest.mark.parametrize(
    "stack",
    [
        pages(RGB, RGB[::-1]),
        pages(*[RGB] * 40),
        pages(GREY, GREY[::-1], GREY[:, ::-1], GREY),
        tiff(np.stack([GREY] * 5), imagej=True, metadata={"axes": "ZYX"}),
        tiff(np.stack([GREY] * 5), ome=True, metadata={"axes": "ZYX"}),
        tiff(np.stack([RGB] * 3), ome=True, photometric="rgb", metadata={"axes": "ZYXS"}),
        tiff(np.stack([GREY] * 3), imagej=True, metadata={"axes": "ZYX"}),
        tiff(np.stack([GREY] * 3), ome=True, metadata={"axes": "ZYX"}),
        tiff(np.stack([GREY] * 3), ome=True, metadata={"axes": "TYX"}),
        pages(GREY, GREY[::-1], GREY[:, ::-1]),
        tiff(GREY, description="ImageJ=1.54f\nimages=9\nslices=9\n"),
        tiff(GREY, extratags=[(33629, 5, 4, (1, 1) * 4, True)]),
    ],
)
def test_a_stack_is_refused(stack: bytes) -> None:
    refused(stack, "pages.*save")


@pytest.mark.parametrize("array", [RGB, WIDE])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_three_pages_that_are_colours_are_one_picture(array: Array, byteorder: Any) -> None:
    colours = planes(array)
    expected = array if array.dtype == np.uint8 else array >> 8
    imagej = {"imagej": True, "byteorder": byteorder}
    for file in (
        tiff(colours, metadata={"axes": "CYX", "mode": "composite"}, **imagej),
        tiff(colours, ome=True, byteorder=byteorder, metadata={"axes": "CYX"}),
        tiff(colours, metadata={"axes": "ZYX", "Labels": ["Red", "Green", "Blue"]}, **imagej),
    ):
        assert np.array_equal(pixels(file), expected)
        assert notice(file) == "pages 1, 2 and 3 were read as its colours"


def test_ome_says_which_channel_is_which_colour() -> None:
    blue_first = planes(RGB)[::-1]
    colours = [65535, 16711935, -16776961]  # blue, green, red
    named = {"axes": "CYX", "Channel": {"Name": ["Blue", "Green", "Red"]}}
    coloured = {"axes": "CYX", "Channel": {"Color": colours}}
    for metadata in (named, coloured):
        assert np.array_equal(pixels(tiff(blue_first, ome=True, metadata=metadata)), RGB)
    stains = {"axes": "CYX", "Channel": {"Color": [65535, 16711935, -1]}}
    refused(tiff(blue_first, ome=True, metadata=stains), "not red, green and blue")


def test_an_opened_tiff_is_read_as_its_file() -> None:
    file = tiff(planes(WIDE), photometric="rgb", planarconfig="separate")
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(np.asarray(decode(image)), WIDE >> 8)
    with Image.open(io.BytesIO(pages(THUMBNAIL, RGB))) as image:
        assert np.array_equal(np.asarray(decode(image)), RGB)
        image.seek(1)
        assert np.array_equal(np.asarray(decode(image)), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_readers_turn_tiffs_upright(orientation: int) -> None:
    told = {"extratags": [(274, "H", 1, orientation, True)], "photometric": "rgb"}
    eight = pixels(tiff(RGB, **told))
    share = pixels(tiff((RGB / 255).astype(np.float32), **told))
    assert np.array_equal(eight, share)
    assert eight.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else RGB.shape)


# DICOM and HEIC


def dicom(array: Array, photometric: str, bits: int, **more: Any) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        pydicom.uid.VLPhotographicImageStorage
    )
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.generate_uid()
    )
    dataset.Rows, dataset.Columns = array.shape[:2]
    dataset.SamplesPerPixel = 1 if array.ndim == 2 else 3
    if array.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored = array.dtype.itemsize * 8, bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_dicom() -> None:
    assert np.array_equal(pixels(dicom(RGB, "RGB", 8)), RGB)
    assert np.array_equal(pixels(dicom(GREY, "MONOCHROME2", 8)), three(GREY))
    assert np.array_equal(pixels(dicom(GREY, "MONOCHROME1", 8)), three(255 - GREY))
    twelve = RNG.integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
    assert np.array_equal(pixels(dicom(twelve, "MONOCHROME2", 12)), three(twelve >> 4))
    ycbcr = np.asarray(Image.fromarray(SMOOTH).convert("YCbCr"))
    assert pixels(dicom(ycbcr, "YBR_FULL", 8)) == pytest.approx(SMOOTH.astype(float), abs=3)
    refused(dicom(RGB, "RGB", 8, NumberOfFrames=7), "DICOM file of 7 frames")
    refused(dicom(RGB, "RGB", 8, Rows=60_000, Columns=60_000), "too large")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"])
def test_compressed_dicom(syntax: str) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(SMOOTH, "RGB", 8)))
    frame = io.BytesIO()
    lossless = syntax.endswith("90")
    Image.fromarray(SMOOTH).save(
        frame,
        "JPEG2000" if lossless else "JPEG",
        **({"no_jp2": True} if lossless else {"quality": 95}),
    )
    dataset.PhotometricInterpretation = "RGB" if lossless else "YBR_FULL_422"
    dataset.PixelData = pydicom.encaps.encapsulate([frame.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    assert pixels(file.getvalue()) == pytest.approx(SMOOTH.astype(float), abs=1 if lossless else 40)


# 16×8 pixels by libheif with x265, which the reader's package does not have: the left half is
# (200, 90, 140), the right (30, 160, 60).
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAAJUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAAD"
    "AIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAEAAAAAEA"
    "AAAIAAAAAf///9AAAAAC////yAAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAnW1k"
    "YXQAAACRKAGvBjIaehCAXUOHi/71rey7xNEtXQ4f/haf/3XbU/iaLBjLu/eZMi/3GINS1BhPoKAO6Lg0iNhovVdTYT3V"
    "5X4pfRhearB0QJXEaFIYsTEDpFhlBSLgIeL0aH6z8++7YRuFJ6gxeUfoY9CXhh9L6Ec2IupQ1wF4BS4LspylJfnl5NsJ"
    "yx0osbMZfmr8x/yUvA=="
)


def test_heic() -> None:
    assert pixels(HEIC).shape == (8, 16, 3)
    assert pixels(HEIC)[4, 3].astype(float) == pytest.approx((200, 90, 140), abs=4)
    assert pixels(HEIC)[4, 12].astype(float) == pytest.approx((30, 160, 60), abs=4)
    refused(HEIC[:400], "damaged")
    refused(HEIC[:60], "damaged")


@pytest.mark.parametrize("form", [{"rowsperstrip": 8}, {"tile": (16, 16)}])
@pytest.mark.parametrize("compression", [None, "lzw", "jpeg2000"])
def test_a_tiff_with_too_few_strips_or_tiles_is_refused(form: Any, compression: Any) -> None:
    file = bytearray(tiff(RGB, photometric="rgb", compression=compression, **form))
    page = tifffile.TiffFile(io.BytesIO(file)).pages[0]
    for name in ("StripOffsets", "StripByteCounts", "TileOffsets", "TileByteCounts"):
        if name in page.tags:
            at = page.tags[name].offset + 4
            file[at : at + 4] = (4).to_bytes(4, "little")
    refused(bytes(file), "strips or tiles are missing")


@pytest.mark.slow
def test_a_strip_that_says_it_is_larger_than_the_page_is_refused() -> None:
    large = np.zeros((1200, 1000, 3), np.uint8)
    for compression, encode in (
        ("jpeg2000", imagecodecs.jpeg2k_encode),
        ("jpegxl", imagecodecs.jpegxl_encode),
        ("webp", imagecodecs.webp_encode),
        ("lerc", imagecodecs.lerc_encode),
    ):
        file = tiff(RGB, photometric="rgb", compression=compression)
        page = tifffile.TiffFile(io.BytesIO(file)).pages[0]
        tags = {tag.name: tag.valueoffset for tag in page.tags}
        lying = bytearray(file + encode(large))
        for name, value in (
            ("StripOffsets", len(file)),
            ("StripByteCounts", len(lying) - len(file)),
        ):
            lying[tags[name] : tags[name] + 4] = value.to_bytes(4, "little")
        refused(bytes(lying), "a strip or tile of 1000×1200 pixels instead of 48×40")


def test_the_sizes_in_the_headers_of_codecs() -> None:
    for width, height in ((1, 1), (8, 16), (37, 500), (300, 200), (640, 640), (700, 400)):
        image = np.zeros((height, width, 3), np.uint8)
        for sizes, encoded in (
            (optional._size_of_jpeg, imagecodecs.jpeg_encode(image)),
            (optional._size_of_jpeg_2000, imagecodecs.jpeg2k_encode(image)),
            (optional._size_of_jpeg_xl, imagecodecs.jpegxl_encode(image)),
            (optional._size_of_webp, imagecodecs.webp_encode(image, lossless=True)),
            (optional._size_of_webp, imagecodecs.webp_encode(image, lossless=False)),
            (optional._size_of_lerc, imagecodecs.lerc_encode(image)),
        ):
            assert sizes(encoded) == (width, height), sizes.__name__
