"""Lossless JPEG for pydicom, decoded by imagecodecs: what many archives store scans in.

pydicom itself asks for packages under the GPL there. A plugin of its, as its guide for
decoders describes: two names that it looks for, and a function for one frame.
"""

from functools import cache
from typing import TYPE_CHECKING

from pydicom.uid import JPEGLossless, JPEGLosslessSV1

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

__all__ = ["DECODER_DEPENDENCIES", "decode_frame", "is_available", "register"]

DECODER_DEPENDENCIES = {JPEGLossless: ("imagecodecs",), JPEGLosslessSV1: ("imagecodecs",)}


def is_available(uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded here."""
    from imagecodecs import JPEGSOF3

    return uid in DECODER_DEPENDENCIES and bool(JPEGSOF3.available)


def decode_frame(content: bytes, runner: "DecodeRunner") -> bytes:
    """One grey frame, as pixels of 8 or 16 bits in the machine's byte order."""
    from imagecodecs import jpegsof3_decode

    pixels = jpegsof3_decode(content)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    return bytes(pixels.tobytes())


@cache
def register() -> None:
    """Make pydicom know of it; once."""
    from pydicom.pixels import get_decoder

    for uid in DECODER_DEPENDENCIES:
        get_decoder(uid).add_plugin("imagecodecs", (__name__, decode_frame.__name__))
