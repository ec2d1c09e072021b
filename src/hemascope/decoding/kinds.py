"""Which kind a file is, by its first bytes, and by which suffixes images are looked for."""

from __future__ import annotations

from typing import IO

from hemascope.errors import ImageError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp",
    ".tif", ".tiff", ".btf", ".tf8", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs", ".dcm", ".heic", ".heif", ".hif",
})
# fmt: on

KINDS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
}

UNKNOWN = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"8BPS": "a Photoshop file",
    b"ZISRAWFILE": "a Zeiss CZI file",
    b"\xda\xce\xbe\x0a": "a Nikon ND2 file",
    b"\x70\x00\x00\x00\x2a": "a Leica LIF file",
    b"\xd0\xcf\x11\xe0": "an Olympus OIB, Zeiss ZVI or Office file",
    b"\x89HDF": "an HDF5 file",
    b"\xff\x0a": "a JPEG XL file",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL file",
    b"II\xbc": "a JPEG XR file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a Git LFS pointer, not the image itself",
}
AVIF_BRANDS, HEIF_BRANDS = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"mif1")


def identify(file: IO[bytes]) -> str:
    """The kind of a file by its first bytes. Raises ImageError for those that are never opened."""
    head = file.read(64)
    if not head:
        raise ImageError("empty file")
    for start, kind in KINDS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, min(len(head), head[3]) - 3, 4)}
        if brands & set(AVIF_BRANDS):
            return "AVIF"
        if brands & set(HEIF_BRANDS):
            return "HEIF"
    file.seek(128)
    if file.read(4) == b"DICM":
        return "DICOM"
    for start, name in UNKNOWN.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start):
            raise ImageError(f"{name}; save the image as PNG, TIFF or JPEG")
    raise ImageError("not an image in a known format")
