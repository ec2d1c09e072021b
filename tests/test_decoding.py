"""Files as people have them: the right pixels, or one sentence that says why not."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from hemascope.decoding import ImageError, decode, decoded

Pixels = NDArray[np.uint8]

RNG = np.random.default_rng(0)
NOISE: Pixels = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
SMOOTH: Pixels = np.asarray(Image.fromarray(NOISE[:5, :7]).resize((160, 120)))


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    opened.save(file, kind, **options)
    return file.getvalue()


def pixels(source: object) -> Pixels:
    image = decode(source)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(source: object, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_png_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A chunk after the header, which is 33 bytes."""
    return png[:33] + png_chunk(kind, body) + png[33:]


# Animations


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_refused(kind: str) -> None:
    frames = [Image.fromarray(NOISE), Image.fromarray(NOISE[::-1])]
    animated = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    refused(animated, "animation")


# Alpha


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_an_alpha_of_nothing_is_no_alpha(kind: str) -> None:
    hidden = np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(encoded(hidden, kind, **options)), NOISE)
    assert np.array_equal(pixels(hidden), NOISE)
    refused(encoded(np.zeros((5, 5, 4), np.uint8), kind, **options), "every pixel is transparent")


@pytest.mark.parametrize("header", [40, 108, 124])
def test_a_bmp_whose_alpha_is_nothing_keeps_its_colours(header: int) -> None:
    body = np.dstack([NOISE[::-1, :, ::-1], np.zeros(NOISE.shape[:2], np.uint8)]).tobytes()
    height, width, _ = NOISE.shape
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) if header > 40 else b""
    info = struct.pack(
        "<IiiHHIIiiII", header, width, height, 1, 32, 3 if masks else 0, len(body), 0, 0, 0, 0
    )
    info = (info + masks).ljust(header, b"\0")
    offset = 14 + len(info)
    bmp = struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset) + info + body
    assert np.array_equal(pixels(bmp), NOISE)


# What is missing of a file


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("size", [(160, 120), (161, 121), (8, 8), (175, 127)])
def test_a_jpeg_without_its_end_marker_is_whole(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    whole = encoded(Image.fromarray(SMOOTH).resize(size), "JPEG", quality=90, **options)
    expected = pixels(whole)
    for cut in (whole[:-1], whole[:-2]):
        assert np.array_equal(pixels(cut), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_jpeg_that_lacks_pixels_is_refused(
    options: dict[str, object], share: float, end: bytes
) -> None:
    whole = encoded(np.asarray(Image.fromarray(NOISE).resize((164, 131))), "JPEG", **options)
    refused(whole[: int(share * len(whole))] + end, "damaged")


def test_a_jpeg_that_says_it_is_higher_than_it_is_is_refused() -> None:
    jpeg = bytearray(encoded(SMOOTH, "JPEG"))
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5 : at + 7] = (200).to_bytes(2, "big")
    refused(bytes(jpeg), "lower part is missing")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_thumbnail_in_the_metadata_is_not_the_picture(progressive: bool) -> None:
    """It is a JPEG with scans and an end marker of its own."""
    plain = np.full((120, 160, 3), 240, np.uint8)
    plain[:100] = SMOOTH[:100]
    jpeg = encoded(plain, "JPEG", progressive=progressive)
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded(
        NOISE, "JPEG", progressive=not progressive
    )
    whole = jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]
    assert np.array_equal(pixels(whole), pixels(jpeg))
    assert np.array_equal(pixels(whole + whole), pixels(jpeg))
    assert np.array_equal(pixels(whole[:-2]), pixels(jpeg))
    assert np.array_equal(pixels(whole[:-2] + bytes(5000)), pixels(jpeg))
    half = whole[: len(whole) - len(jpeg) // 2]
    for damaged in (half, half + b"\xff\xd9", half + bytes(len(jpeg) // 2)):
        refused(damaged, "damaged")


def test_a_white_jpeg_is_whole() -> None:
    assert (pixels(encoded(Image.new("RGB", (40, 40), "white"), "JPEG")) == 255).all()
    assert (pixels(encoded(Image.new("L", (41, 33), 255), "JPEG")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_a_file_that_lacks_half_is_refused(kind: str) -> None:
    options = {"TIFF": {"compression": "tiff_lzw"}, "JPEG2000": {"irreversible": False}}
    whole = encoded(NOISE, kind, **options.get(kind, {}))
    assert pixels(whole).shape == NOISE.shape
    refused(whole[: len(whole) // 2], "damaged|cannot")


@pytest.mark.parametrize("compression", [None, "jpeg", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_that_lacks_its_last_strip_is_refused(compression: str | None) -> None:
    whole = encoded(NOISE, "TIFF", compression=compression)
    at = whole.find(struct.pack("<HHI", 279, 4, 1))  # the strip's length
    assert at > 0
    length = struct.unpack("<I", whole[at + 8 : at + 12])[0]
    short = whole[: at + 8] + struct.pack("<I", length // 2) + whole[at + 12 :]
    if compression is not None:
        refused(short, "damaged")


# Metadata


def test_a_png_with_much_text_keeps_its_pixels() -> None:
    png = encoded(NOISE)
    text = b"Description\0\0" + zlib.compress(b"<slide/>" * 400_000)
    assert np.array_equal(pixels(with_png_chunk(png, b"zTXt", text)), NOISE)
    assert np.array_equal(pixels(with_png_chunk(png, b"tEXt", b"a\0" + b"x" * 5_000_000)), NOISE)
    profile = b"scanner\0\0" + zlib.compress(bytes(2_000_000))
    assert np.array_equal(pixels(with_png_chunk(png, b"iCCP", profile)), NOISE)
    for broken in (b"iCCP", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"eXIf", b"acTL", b"tIME"):
        assert np.array_equal(pixels(with_png_chunk(png, broken, b"\0\1")), NOISE), broken
    assert np.array_equal(pixels(with_png_chunk(png, b"tRNS", b"\0\1")), NOISE)
    wrong_sum = with_png_chunk(png, b"tEXt", b"a\0b")[:44] + b"????" + png[33:]
    assert np.array_equal(pixels(wrong_sum), NOISE)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"MM\0*\0\0\0\x08\xff\xff", b"\xff" * 70])
def test_an_unreadable_exif_costs_no_pixel(kind: str, exif: bytes) -> None:
    options: dict[str, object] = {"WEBP": {"lossless": True}}.get(kind, {})
    plain = pixels(encoded(SMOOTH, kind, **options))
    file = encoded(SMOOTH, kind, exif=b"MM\0*\0\0\0\x08\0\0\0\0\0\0" + bytes(60), **options)
    at = file.rfind(b"MM\0*")
    assert at > 0
    file = file[:at] + exif[:20].ljust(20, b"\xff") + file[at + 20 :]
    assert np.array_equal(pixels(file), plain)


def test_a_tiff_with_an_unreadable_exif_is_turned_upright() -> None:
    tiff = encoded(NOISE, "TIFF", tiffinfo={0x0112: 6, 0x010E: "a cell"})
    at = tiff.find(struct.pack("<HH", 0x010E, 2))
    places = struct.pack("<HHII", 0x8769, 4, 1, 7_000_000)  # EXIF far past the end
    # Directories are in the order of their tags; Pillow does not mind, and neither do we.
    assert np.array_equal(pixels(tiff[:at] + places + tiff[at + 12 :]), np.rot90(NOISE, -1))


def test_a_turned_photograph_with_an_odd_tag_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x9286] = "ü"  # a user's comment with the wrong type
    whole = encoded(SMOOTH, "JPEG", exif=exif)
    at = whole.find(struct.pack("<HH", 0x9286, 2)) if b"II*" in whole else -1
    order = "<" if at > 0 else ">"
    at = at if at > 0 else whole.find(struct.pack(">HH", 0x9286, 2))
    odd = whole[: at + 2] + struct.pack(order + "H", 77) + whole[at + 4 :]
    expected = np.rot90(pixels(encoded(SMOOTH, "JPEG")), -1)
    assert np.array_equal(pixels(odd), expected)


def test_a_png_is_turned_wherever_its_exif_stands() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    png, expected = encoded(NOISE), np.rot90(NOISE, -1)
    assert np.array_equal(pixels(with_png_chunk(png, b"eXIf", data)), expected)
    assert np.array_equal(pixels(png[:-12] + png_chunk(b"eXIf", data) + png[-12:]), expected)
    text = f"\nexif\n{len(data) + 6}\n{(b'Exif' + bytes(2) + data).hex()}\n".encode()
    raw = b"Raw profile type exif\0\0" + zlib.compress(text)
    assert np.array_equal(pixels(with_png_chunk(png, b"zTXt", raw)), expected)


def test_a_jpeg_with_a_broken_segment_keeps_its_pixels() -> None:
    jpeg = encoded(SMOOTH, "JPEG")
    for marker, body in (
        (0xED, b"Photoshop 3.0\x008BIM\x04\xff"),
        (0xE2, b"MPF\0nonsense"),
        (0xE0, b"JFIF"),
        (0xEE, b"Adobe"),
    ):
        segment = bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
        assert np.array_equal(pixels(jpeg[:2] + segment + jpeg[2:]), pixels(jpeg))


# Colours


def wide_profile(primaries: tuple[tuple[float, float], ...], gamma: float) -> bytes:
    """A matrix profile of these primaries (x, y) with white D50, as colour spaces have it."""
    xyz = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array([0.9642, 1.0, 0.8249])
    columns = xyz * np.linalg.solve(xyz, white)

    def fixed(values: NDArray[np.float64]) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {
        name: b"XYZ \0\0\0\0" + fixed(column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)
    }
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + fixed(white)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags.update(dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s12s4s", 0, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ",
                         bytes(12), b"acsp")  # fmt: skip
    header = header.ljust(68, b"\0") + fixed(white)
    profile = header.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


ADOBE_RGB = wide_profile(((0.6484, 0.3309), (0.2302, 0.7016), (0.1559, 0.0660)), 2.2)
PROPHOTO = wide_profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def in_srgb(colours: Pixels, profile: bytes) -> Pixels:
    there = ImageCms.profileToProfile(
        Image.fromarray(colours),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
    )
    assert there is not None
    return np.asarray(there)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("profile", [ADOBE_RGB, PROPHOTO])
def test_a_wide_profile_is_brought_to_srgb(kind: str, profile: bytes) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    file = encoded(NOISE, kind, icc_profile=profile, **options)
    expected = in_srgb(NOISE, profile)
    assert np.abs(expected.astype(int) - NOISE).max() > 20
    assert np.array_equal(pixels(file), expected)
    if kind == "PNG":
        odd = with_png_chunk(file, b"tEXt", b"a\0" + b"x" * 70_000_000)
        assert np.array_equal(pixels(odd), expected)


def test_adobe_rgb_by_its_formula() -> None:
    """Grey stays grey, and a colour inside sRGB is where Adobe's matrix puts it."""
    colours = np.array([[(128, 128, 128), (150, 120, 160)]], np.uint8)
    linear = (colours[0, 1] / 255.0) ** 2.2
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529],
                       [0.02703, 0.07069, 0.99134]])  # fmt: skip
    to_srgb = np.array([[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156],
                        [0.05564, -0.20403, 1.05723]])  # fmt: skip
    light = to_srgb @ to_xyz @ linear
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    got = pixels(encoded(colours, icc_profile=ADOBE_RGB))
    assert got[0, 0] == pytest.approx((127.5, 127.5, 127.5), abs=2)
    assert got[0, 1] == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("profile", [SRGB, b"nonsense", SRGB[:200], b""])
def test_srgb_and_unreadable_profiles_change_no_pixel(profile: bytes) -> None:
    assert np.array_equal(pixels(encoded(NOISE, icc_profile=profile)), NOISE)
    assert np.array_equal(
        pixels(encoded(NOISE[:, :, 0], icc_profile=profile))[:, :, 1], NOISE[:, :, 0]
    )


def test_a_profile_and_alpha() -> None:
    alpha = np.full(NOISE.shape[:2], 255, np.uint8)
    file = encoded(np.dstack([NOISE, alpha]), icc_profile=ADOBE_RGB)
    assert pixels(file) == pytest.approx(in_srgb(NOISE, ADOBE_RGB), abs=1)


def test_lab_and_ycbcr() -> None:
    lab = Image.frombytes("LAB", (1, 1), bytes([136, 72, 2]))  # 53.3, 72, 2 by CIE's formula
    assert pixels(encoded(lab, "TIFF"))[0, 0] == pytest.approx((232, 48, 128), abs=1)
    ycbcr = Image.fromarray(SMOOTH).convert("YCbCr")
    assert pixels(encoded(ycbcr, "JPEG")) == pytest.approx(SMOOTH.astype(float), abs=40)


def test_cmyk_jpegs_with_and_without_adobes_marker() -> None:
    ink = Image.new("CMYK", (16, 16), (10, 150, 60, 30))
    jpeg = encoded(ink, "JPEG", quality=100)
    assert pixels(jpeg)[8, 8] == pytest.approx((216, 93, 172), abs=3)
    at = jpeg.find(b"Adobe") - 4
    assert pixels(jpeg[:at] + jpeg[at + 16 :])[8, 8] == pytest.approx((216, 93, 172), abs=3)


def test_rgb_jpegs_by_adobes_marker() -> None:
    jpeg = encoded(SMOOTH, "JPEG", quality=95, keep_rgb=True)
    assert pixels(jpeg) == pytest.approx(SMOOTH.astype(float), abs=30)


# Bits


def test_16_bit_pixels_that_are_nearly_black_are_refused() -> None:
    twelve = RNG.integers(0, 4096, (40, 56), dtype=np.uint16)
    for source in (twelve, encoded(twelve), encoded(twelve, "TIFF")):
        refused(source, "nearly black")
    refused(np.dstack([twelve] * 3), "nearly black")
    refused(encoded(Image.fromarray(twelve.astype(np.int32)), "TIFF"), "nearly black")
    assert (pixels(np.zeros((5, 5), np.uint16)) == 0).all()


def test_a_16_bit_colour_png_that_is_nearly_black_is_refused() -> None:
    for high, reason in ((4096, "nearly black"), (65536, "")):
        wide = RNG.integers(0, high, (9, 7, 3), dtype=np.uint16)
        lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in wide)
        png = b"\x89PNG\r\n\x1a\n" + png_chunk(
            b"IHDR", struct.pack(">IIBBBBB", 7, 9, 16, 2, 0, 0, 0)
        )
        png += png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
        if reason:
            refused(png, reason)
        else:
            assert np.array_equal(pixels(png), wide // 256)


def test_a_png_that_says_its_bits_is_scaled() -> None:
    twelve = RNG.integers(0, 4096, (40, 56), dtype=np.uint16)
    said = with_png_chunk(encoded(twelve), b"sBIT", b"\x0c")
    assert np.array_equal(pixels(said)[:, :, 0], twelve >> 4)
    full = with_png_chunk(encoded(twelve * 16), b"sBIT", b"\x0c")
    assert np.array_equal(pixels(full)[:, :, 0], twelve >> 4)


@pytest.mark.parametrize("bits", [12, 16])
def test_jpeg_2000_of_more_bits(bits: int) -> None:
    colours = RNG.integers(0, 1 << bits, (40, 56, 3), dtype=np.uint16)
    for array in (colours, colours[:, :, 0]):
        file = imagecodecs.jpeg2k_encode(array, level=0, bitspersample=bits)
        expected = np.broadcast_to((array >> (bits - 8)).reshape(40, 56, -1), (40, 56, 3))
        assert pixels(file).astype(int) == pytest.approx(expected.astype(int), abs=1)
    refused(imagecodecs.jpeg2k_encode(colours >> (bits - 8), level=0, bitspersample=16), "black")


def test_a_pgm_is_scaled_by_its_largest_value() -> None:
    twelve = RNG.integers(0, 4096, (5, 7), dtype=np.uint16)
    pgm = b"P5\n7 5\n4095\n" + twelve.astype(">u2").tobytes()
    assert pixels(pgm)[:, :, 0] == pytest.approx(twelve * (255 / 4095), abs=1)


def test_what_pillow_decodes_in_python_is_small() -> None:
    assert pixels(encoded(NOISE, "PPM")).shape == NOISE.shape
    refused(b"P5\n1300 1300\n4095\n" + bytes(2 * 1300 * 1300), "too slow")
    refused(b"P3\n1300 1300\n255\n" + b"1 " * 100, "too slow")


# What is never opened


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"ZISRAWFILE", "Zeiss CZI"),
        (b"\xda\xce\xbe\x0a" + bytes(40), "ND2"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
        (b"PK\x03\x04", "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"", "empty file"),
        (b"hello", "not an image in a known format"),
        (bytes(200), "not an image in a known format"),
        (b"P8\n", "not an image in a known format"),
    ],
)
def test_other_files_are_named_and_not_opened(content: bytes, reason: str) -> None:
    refused(content, reason)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would run `gs` for an EPS file."""
    fake = tmp_path / "gs"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "cell.png").write_bytes(eps)
    refused(tmp_path / "cell.png", "PostScript")
    with Image.open(io.BytesIO(eps)) as opened:
        refused(opened, "EPS images are not opened")
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_folders_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "a pipe or a device")
    refused(Path("/dev/null"), "a pipe or a device")
    refused(tmp_path, "a folder")
    refused(tmp_path / "none.png", "no such file")


def test_importing_changes_nothing_of_pillow() -> None:
    code = (
        "from PIL import Image, ImageFile; before = Image.MAX_IMAGE_PIXELS, dict(Image.OPEN);"
        "import hemascope.preprocess, hemascope.decoding;"
        "assert Image.MAX_IMAGE_PIXELS == before[0] and not ImageFile.LOAD_TRUNCATED_IMAGES"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Pillow images


def test_a_pillow_image_stays_as_it_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(encoded(NOISE, exif=exif))
    with Image.open(tmp_path / "turned.png") as image:
        for _ in range(2):
            assert np.array_equal(pixels(image), np.rot90(NOISE, -1))
        assert image.size == (56, 40)
    own = Image.fromarray(NOISE)
    decode(own).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(own), NOISE)


def test_a_notice_is_empty_for_one_image() -> None:
    with decoded(encoded(NOISE)) as found:
        assert found.notice == ""
    with decoded(encoded(NOISE, "TIFF")) as found:
        assert found.notice == ""


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_2000_without_its_end_marker_is_whole(missing: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000")
    content = file.getvalue()
    assert np.array_equal(decode(content[:-missing]), pixels)
    with pytest.raises(ImageError, match="damaged"):
        decode(content[: -missing - 3])
