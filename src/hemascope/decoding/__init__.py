"""Image files and arrays → upright 8-bit RGB images; what cannot be read right is refused.

`decode` is the whole of it. The formats are an allow-list, an image's cost is bounded by its
header before it is decoded, and pixels that Pillow would read wrong are read another way or
refused with the reason. Metadata never costs an image whose pixels are there.
"""

from hemascope.decoding.given import ImageSource
from hemascope.decoding.kinds import IMAGE_SUFFIXES
from hemascope.decoding.sources import Decoded, decode, decoded
from hemascope.errors import ImageError

__all__ = ["IMAGE_SUFFIXES", "Decoded", "ImageError", "ImageSource", "decode", "decoded"]
