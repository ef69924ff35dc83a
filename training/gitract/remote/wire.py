"""What goes over the wire: a JSON header and arrays, compressed; nothing that could run.

A message is eight bytes with the length of the header, the header in UTF-8, and the arrays'
bytes, each compressed by zlib, in the order in which the header lists them.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gitract.corrections import Corrections
from gitract.errors import InputError
from gitract.organs import Organ
from gitract.scan import Scan, Segmentation

__all__ = ["corrections_of", "packed", "told_of", "unpacked"]

_KINDS = "buif"  # bool, integers, floats: no objects
_LEVEL = 1  # scans shrink by half at any level; the faster the better


def packed(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A message with JSON-ready content and arrays of numbers."""
    listed, blobs = [], []
    for name, array in (arrays or {}).items():
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        blob = zlib.compress(plain.tobytes(), _LEVEL)
        listed.append(
            {"name": name, "dtype": plain.dtype.str, "shape": array.shape, "bytes": len(blob)}
        )
        blobs.append(blob)
    header = json.dumps({"content": content, "arrays": listed}).encode()
    return b"".join([len(header).to_bytes(8, "little"), header, *blobs])


def unpacked(message: bytes, *, most: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Content and arrays of a message.

    Parameters
    ----------
    message
        As `packed` made it.
    most
        Bytes that the arrays may have when they are unpacked: a small message can claim to
        be a large one.

    Raises
    ------
    InputError
        It is no such message, or too large.
    """
    try:
        length = int.from_bytes(message[:8], "little")
        header = json.loads(message[8 : 8 + length])
        content, arrays, at = dict(header["content"]), {}, 8 + length
        for one in header["arrays"]:
            dtype, shape = np.dtype(one["dtype"]), tuple(int(n) for n in one["shape"])
            size = dtype.itemsize * math.prod(shape)
            if dtype.kind not in _KINDS or min(shape, default=0) < 0:
                raise ValueError("an array of something else than numbers")
            most -= size
            if most < 0:
                raise InputError("The message is too large when it is unpacked.")
            blob = message[at : at + one["bytes"]]
            at += one["bytes"]
            content_bytes = zlib.decompressobj().decompress(blob, size + 1)
            arrays[str(one["name"])] = np.frombuffer(content_bytes, dtype).reshape(shape).copy()
    except (
        ValueError,
        KeyError,
        TypeError,
        zlib.error,
        UnicodeDecodeError,
        OverflowError,
    ) as error:
        raise InputError("The message is damaged, or not of gitract.") from error
    return content, arrays


def told_of(corrections: Corrections) -> dict[str, Any]:
    """All that a server learns of corrections but their arrays; no name, no path."""
    scan, segmentation = corrections.scan, corrections.segmentation
    kept = {
        key: segmentation.provenance[key]
        for key in ("unreviewed", "rejected")
        if key in segmentation.provenance
    }
    return {
        "spacing": list(scan.spacing),
        "affine": scan.affine.tolist(),
        "organs": [{"id": o.id, "name": o.name, "color": o.color} for o in segmentation.organs],
        "slices": list(corrections.slices),
        "provenance": kept,
    }


def corrections_of(
    told: Mapping[str, Any], voxels: np.ndarray, masks: np.ndarray, name: str
) -> Corrections:
    """What `told_of` told, with its arrays.

    Raises
    ------
    InputError
        The arrays do not fit each other.
    """
    spacing = tuple(told["spacing"])
    scan = Scan(voxels, spacing, affine=np.array(told["affine"]), name=name)
    organs = tuple(Organ(**organ) for organ in told["organs"])
    contours = Segmentation(
        masks, scan.spacing, scan.affine, organs, name, provenance=told["provenance"]
    )
    return Corrections(scan, contours, tuple(int(index) for index in told["slices"]))
