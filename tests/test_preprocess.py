"""Preprocessing: every kind of image becomes upright 8-bit RGB, then the square it should."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemascope.decoding import decode
from hemascope.decoding.limits import MAX_PIXELS
from hemascope.errors import ImageError
from hemascope.preprocess import InputSpec

Pixels = NDArray[np.uint8]

RNG = np.random.default_rng(0)
RGB: Pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY: Pixels = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA: Pixels = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
INDICES: Pixels = RNG.integers(0, 3, (5, 7), dtype=np.uint8)
PALETTE: Pixels = np.array([(200, 30, 60), (10, 250, 90), (0, 40, 255)], dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def three(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[:, :, None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def paletted() -> Image.Image:
    image = Image.fromarray(INDICES).convert("L")
    image.putpalette(PALETTE.tobytes())
    return image


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_16_bit_rgb(pixels: NDArray[np.uint16]) -> bytes:
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def pixels(source: object) -> Pixels:
    image = decode(source)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_keep_every_pixel(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(encoded(Image.fromarray(RGB), kind, **options)), RGB)


def test_a_jpeg_keeps_a_plain_colour() -> None:
    plain = Image.new("RGB", (16, 16), (180, 90, 140))
    assert pixels(encoded(plain, "JPEG")).reshape(-1, 3) == pytest.approx(
        np.tile((180, 90, 140), (256, 1)), abs=2
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey(kind: str) -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(GREY), kind)), three(GREY))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit(kind: str) -> None:
    white = GREY > 127
    expected = three(np.where(white, 255, 0).astype(np.uint8))
    assert np.array_equal(pixels(encoded(Image.fromarray(white), kind)), expected)
    assert np.array_equal(pixels(white), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette(kind: str) -> None:
    assert np.array_equal(pixels(encoded(paletted(), kind)), PALETTE[INDICES])


def test_a_palettes_transparent_colours_are_laid_on_white() -> None:
    one = pixels(encoded(paletted(), transparency=1))
    assert np.array_equal(one, np.where(INDICES[:, :, None] == 1, 255, PALETTE[INDICES]))
    alphas = np.array([0, 128, 255], dtype=np.uint8)
    many = pixels(encoded(paletted(), transparency=alphas.tobytes()))
    assert many == pytest.approx(on_white(PALETTE[INDICES], alphas[INDICES]), abs=1)


def test_one_transparent_colour_is_laid_on_white() -> None:
    colours, grey = PALETTE[INDICES], INDICES * 100
    rgb = encoded(Image.fromarray(colours), transparency=tuple(PALETTE[2].tolist()))
    assert np.array_equal(pixels(rgb), np.where(INDICES[:, :, None] == 2, 255, colours))
    one = encoded(Image.fromarray(grey), transparency=100)
    assert np.array_equal(pixels(one), three(np.where(grey == 100, 255, grey).astype(np.uint8)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_laid_on_white(kind: str) -> None:
    rgba = np.dstack([RGB, ALPHA])
    assert pixels(encoded(Image.fromarray(rgba), kind)) == pytest.approx(
        on_white(RGB, ALPHA), abs=1
    )
    assert pixels(rgba) == pytest.approx(on_white(RGB, ALPHA), abs=1)
    grey = Image.fromarray(np.dstack([GREY, ALPHA]), "LA")
    assert pixels(encoded(grey, kind)) == pytest.approx(on_white(three(GREY), ALPHA), abs=1)


def test_cmyk() -> None:
    inks = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    paper = 255 - inks.astype(np.float64)
    expected = paper[:, :, :3] * paper[:, :, 3:] / 255
    image = Image.frombytes("CMYK", (7, 5), inks.tobytes())
    assert pixels(encoded(image, "TIFF")) == pytest.approx(expected, abs=1)
    plain = Image.new("CMYK", (16, 16), (10, 150, 60, 30))
    assert pixels(encoded(plain, "JPEG"))[8, 8] == pytest.approx((216, 93, 172), abs=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(kind: str) -> None:
    expected = three((WIDE // 256).astype(np.uint8))
    assert np.array_equal(pixels(encoded(Image.fromarray(WIDE), kind)), expected)


def test_16_bit_grey_in_32_bit_integers() -> None:
    expected = three((WIDE // 256).astype(np.uint8))
    assert np.array_equal(pixels(encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF")), expected)
    for value in (-1, 70_000):
        tiff = encoded(Image.fromarray(np.full((5, 7), value, np.int32)), "TIFF")
        with pytest.raises(ImageError, match=f"from {value} to {value}"):
            decode(tiff)


def test_16_bit_colour_keeps_its_high_bytes() -> None:
    wide = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    assert np.array_equal(pixels(png_16_bit_rgb(wide)), wide // 256)
    assert np.array_equal(pixels(wide), wide // 256)


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_are_turned_upright(orientation: int) -> None:
    image = Image.fromarray(RGB).resize((40, 24), Image.Resampling.NEAREST)
    stored = pixels(encoded(image, "JPEG"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = pixels(encoded(image, "JPEG", exif=exif))
    assert np.array_equal(turned, UPRIGHT[orientation](stored))


def test_arrays() -> None:
    assert np.array_equal(pixels(RGB), RGB)
    assert np.array_equal(pixels(RGB[::-1, ::2]), RGB[::-1, ::2])
    assert np.array_equal(pixels(GREY), three(GREY))
    assert np.array_equal(pixels(GREY[:, :, None]), three(GREY))
    assert np.array_equal(pixels(WIDE), three((WIDE // 256).astype(np.uint8)))
    assert np.array_equal(pixels(WIDE.astype(">u2")), pixels(WIDE))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_run_from_0_to_1(dtype: type[np.floating]) -> None:
    scaled = (RGB / 255).astype(dtype)
    assert np.array_equal(pixels(scaled), RGB)
    assert np.array_equal(pixels(scaled[:, :, :1]), three(RGB[:, :, 0]))


def test_a_floating_point_tiff() -> None:
    tiff = encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF")
    assert np.array_equal(pixels(tiff), three(GREY))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((5, 5, 2), np.uint8), "shape"),
        (np.zeros((1, 5, 5, 3), np.uint8), "shape"),
        (np.full((5, 5), 255.0), "between 0 and 1"),
        (np.full((5, 5), -0.1), "between 0 and 1"),
        (np.full((5, 5), np.nan), "between 0 and 1"),
        (np.full((5, 5), 200, np.int64), "int64"),
        (np.full((5, 5), 200, np.uint32), "uint32"),
        (np.full((5, 5), 200, np.int16), "int16"),
        (np.zeros((5, 5), np.complex64), "complex64"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: NDArray[np.generic], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(array)


def test_the_limit_is_on_pixels_not_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 100_000_000
    monkeypatch.setenv("HEMASCOPE_MAX_PIXELS", "35")
    assert pixels(encoded(Image.fromarray(RGB))).shape == (5, 7, 3)
    monkeypatch.setenv("HEMASCOPE_MAX_PIXELS", "34")
    with pytest.raises(ImageError, match="7×5 pixels"):
        decode(encoded(Image.fromarray(RGB)))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_cut_anywhere_is_an_image_error_or_an_image(kind: str) -> None:
    whole = encoded(Image.fromarray(RGB).resize((32, 32)), kind)
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        with suppress(ImageError):
            assert decode(whole[:length]).mode == "RGB"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_with_wrong_bytes_is_an_image_error_or_an_image(kind: str) -> None:
    whole = encoded(Image.fromarray(RGB), kind)
    rng = np.random.default_rng(1)
    for _ in range(100):
        spoilt = bytearray(whole)
        for index in rng.integers(0, len(whole), 3):
            spoilt[index] = rng.integers(0, 256)
        with suppress(ImageError):
            assert decode(bytes(spoilt)).mode == "RGB"


@pytest.mark.parametrize("error", [TypeError, AttributeError, struct.error])
def test_whatever_a_decoder_raises_is_an_image_error(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(image: Image.Image, orientation: int, bits: int | None) -> Image.Image:
        raise error("wrong tag")

    monkeypatch.setattr("hemascope.decoding.sources.to_rgb", fail)
    with pytest.raises(ImageError, match="damaged image: wrong tag"):
        decode(encoded(Image.fromarray(RGB)))


def test_an_opened_image_that_is_damaged_is_an_image_error(tmp_path: Path) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "cut.jpg").write_bytes(encoded(Image.fromarray(noise), "JPEG")[:2000])
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(ImageError, match="damaged"):
        decode(image)


def test_a_path_its_bytes_an_image_and_an_array_are_the_same(tmp_path: Path) -> None:
    noise = RNG.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    path = tmp_path / "cell.png"
    Image.fromarray(noise).save(path)
    spec = InputSpec(32, 0.7)
    expected = spec.load(noise)
    with Image.open(path) as image:
        for source in (path, str(path), path.read_bytes(), image):
            assert np.array_equal(spec.load(source), expected)


def weights(start: float, side: float, length: int, size: int) -> NDArray[np.float64]:
    """(size, length): what each pixel of a line gives to each of the resized line."""
    scale = side / size
    reach = max(scale, 1.0)
    centres = start + (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / reach
    raw = np.maximum(0, 1 - distance)
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def naive(image: Pixels, size: int, crop: float) -> NDArray[np.float64]:
    height, width, _ = image.shape
    side = min(height, width) * crop
    down = weights((height - side) / 2, side, height, size)
    across = weights((width - side) / 2, side, width, size)
    return np.einsum("ih,jw,hwc->ijc", down, across, image)


@pytest.mark.parametrize(
    ("height", "width", "size", "crop"),
    [
        (64, 64, 64, 1.0),
        (100, 100, 20, 1.0),
        (100, 100, 50, 0.5),
        (60, 90, 24, 1.0),
        (90, 60, 24, 0.8),
        (20, 30, 64, 1.0),
        (120, 47, 16, 0.6),
    ],
)
def test_cropping_and_resizing_are_a_weighted_mean(
    height: int, width: int, size: int, crop: float
) -> None:
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    square = InputSpec(size, crop).load(image)
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert square == pytest.approx(naive(image, size, crop), abs=1.5)


def test_a_crop_shows_the_middle_and_nothing_else() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[25:75, 25:75] = (200, 100, 50)
    assert (InputSpec(50, 0.5).load(image) == (200, 100, 50)).all()
    assert (InputSpec(32, 0.5).load(image)[1:-1, 1:-1] == (200, 100, 50)).all()
    assert (InputSpec(60, 0.6).load(image)[[0, -1]] == 0).all()


@pytest.mark.parametrize("shape", [(40, 100, 3), (100, 40, 3)])
def test_of_a_long_image_the_middle_square_is_kept(shape: tuple[int, int, int]) -> None:
    image = np.zeros(shape, dtype=np.uint8)
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    image[top : top + 40, left : left + 40] = 255
    assert (InputSpec(40).load(image) == 255).all()


def test_one_pixel_is_enough() -> None:
    assert (InputSpec(16, 0.1).load(np.full((1, 9, 3), 7, np.uint8)) == 7).all()


@pytest.mark.parametrize("size", [-1, 0, 15, 2049])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        InputSpec(size)


@pytest.mark.parametrize("crop", [-1.0, 0.0, 0.09, 1.01, float("nan")])
def test_a_crop_out_of_range_is_refused(crop: float) -> None:
    with pytest.raises(ValueError, match=f"not {crop}"):
        InputSpec(crop=crop)


def test_the_limits_themselves_are_allowed() -> None:
    assert InputSpec(16, 0.1).size == 16
    assert InputSpec(2048, 1.0).size == 2048
