"""One greyscale slice in a PNG file, 8 or 16 bits, values unchanged."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError

__all__ = ["read_grey_png", "write_grey_png"]

# The fixed beginning: signature, then length and name of the first chunk, width, height,
# bits and colour type (PNG specification, 5.2 and 11.2.1).
_HEADER = struct.Struct(">8s4x4sIIBB")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
_TYPES: dict[int, type[np.unsignedinteger]] = {8: np.uint8, 16: np.uint16}
_MAX_SIDE = 65535


def read_grey_png(path: Path, *, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a greyscale PNG.

    Parameters
    ----------
    path
        The file.
    shape
        ``(rows, columns)`` that the file must have; anything when None.

    Returns
    -------
    numpy.ndarray
        ``(row, column)``, ``uint8`` or ``uint16`` as stored.

    Raises
    ------
    InputError
        The file is missing, damaged, not greyscale of 8 or 16 bits, or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): check that it is there and permitted."
        ) from error
    try:
        pixel_type = _checked_type(path, content, shape)
        # Decoding alone skips the checksums: a flipped bit would pass as an odd pixel.
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # Pillow before 11.3 opens 16 bits as 32.
            return np.asarray(image).astype(pixel_type, copy=False)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has more pixels than a slice can have: cut it first.") from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path} is damaged or not a PNG image: copy it again from its source."
        ) from error


def _checked_type(
    path: Path, content: bytes, shape: tuple[int, int] | None
) -> type[np.unsignedinteger]:
    """The type of the pixels, by the header; colour and a wrong size are refused there."""
    signature, first, width, height, bits, colour = _HEADER.unpack_from(content)
    if (signature, first) != (_SIGNATURE, b"IHDR") or colour not in _COLOURS:
        raise ValueError("no PNG header")
    if colour != 0 or bits not in _TYPES:
        raise InputError(
            f"{path} is not a greyscale image of 8 or 16 bits (its pixels are "
            f"{_COLOURS[colour]} of {bits} bits): save it as greyscale."
        )
    if shape is not None and (height, width) != shape:
        raise InputError(
            f"{path} has {width} x {height} pixels but its name says "
            f"{shape[1]} x {shape[0]}: correct the file or its name."
        )
    if max(width, height) > _MAX_SIDE:
        raise InputError(
            f"{path} claims {width} x {height} pixels, more than a slice can have: cut it first."
        )
    return _TYPES[bits]


def write_grey_png(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> None:
    """Write ``(row, column)`` pixels of 8 or 16 bits to a greyscale PNG."""
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")
