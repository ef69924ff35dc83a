"""One greyscale slice in a PNG file, 8 or 16 bits, values unchanged."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gitract.errors import InputError

__all__ = ["read_grey_png", "write_grey_png"]

# Pillow before 11.3 opens 16-bit greyscale as "I" (32 bits), later ones as "I;16".
_TYPE_OF_MODE = {"L": np.uint8, "I;16": np.uint16, "I": np.uint16}


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
        The file is missing, damaged, not greyscale, or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): check that it is there and permitted."
        ) from error
    try:
        # Decoding alone skips the checksums: a flipped bit would pass as an odd pixel.
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            _check_header(path, image.mode, (image.height, image.width), shape)
            pixels = np.asarray(image).astype(_TYPE_OF_MODE[image.mode], copy=False)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
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
    return pixels


def _check_header(
    path: Path, mode: str, size: tuple[int, int], shape: tuple[int, int] | None
) -> None:
    """Refuse colour and a wrong size before a pixel is decoded."""
    if mode not in _TYPE_OF_MODE:
        raise InputError(
            f"{path} is not a greyscale image of 8 or 16 bits (its pixels are {mode}): "
            "save it as greyscale."
        )
    if shape is not None and size != shape:
        raise InputError(
            f"{path} has {size[1]} x {size[0]} pixels but its name says "
            f"{shape[1]} x {shape[0]}: correct the file or its name."
        )


def write_grey_png(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], path: Path) -> None:
    """Write ``(row, column)`` pixels of 8 or 16 bits to a greyscale PNG."""
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")
