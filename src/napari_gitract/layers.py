"""Scan <-> Image layer and Segmentation <-> Labels layer: scale, units, colours, metadata.

No Qt here: the reader and the writer use it too. What napari has no field for (true
spacing, patient coordinates, organ table, provenance) travels in
``layer.metadata["gitract"]`` as an `Origin`. A user may move, scale or rotate a layer;
its `Origin` still knows the scan's own geometry, and a segmentation takes over the
transform that the image has now.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gitract.errors import InputError
from gitract.organs import ORGANS, Organ
from gitract.scan import Scan, Segmentation, Spacing

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

__all__ = [
    "AXES",
    "LayerTuple",
    "Origin",
    "contrast_limits",
    "origin_by_scale",
    "origin_of",
    "painted_volumes",
    "scan_from_layer",
    "scan_to_layer",
    "segmentation_from_layer",
    "segmentation_of_labels",
    "segmentation_to_layer",
]

AXES = ("z", "y", "x")
METADATA_KEY = "gitract"
UNKNOWN_ORGAN_COLOR = "#808080"

LayerTuple = tuple[np.ndarray, dict[str, Any], str]


@dataclass(frozen=True, eq=False)
class Origin:
    """What a layer remembers of the scan or segmentation that it shows.

    Parameters
    ----------
    name, spacing, affine, source, slice_numbers
        As in `gitract.scan.Scan`.
    organs, provenance
        As in `gitract.scan.Segmentation`; of a Labels layer only.
    """

    name: str
    spacing: Spacing
    affine: np.ndarray
    source: Path | None = None
    slice_numbers: tuple[int, ...] | None = None
    organs: tuple[Organ, ...] = ORGANS
    provenance: Mapping[str, Any] = field(default_factory=dict)


def origin_of(metadata: Mapping[str, Any]) -> Origin | None:
    """The `Origin` in a layer's metadata, or None where the layer is not of our making."""
    origin = metadata.get(METADATA_KEY)
    return origin if isinstance(origin, Origin) else None


def contrast_limits(voxels: np.ndarray, percentiles: tuple[float, float] = (0.5, 99.5)) -> list:
    """Display limits that a few very bright voxels cannot spoil.

    Parameters
    ----------
    voxels
        The scan; about half a million voxels of it are looked at.
    percentiles
        Share of voxels, in percent, below the lower and below the upper limit.

    Returns
    -------
    list of float
        ``[low, high]``, never equal.
    """
    step = max(1, int(np.cbrt(voxels.size / 500_000)))
    sample = voxels[::step, ::step, ::step]
    finite = sample[np.isfinite(sample)]
    if finite.size == 0:
        return [0.0, 1.0]
    low, high = (float(value) for value in np.percentile(finite, percentiles))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return [low, high if high > low else low + 1.0]


def scan_to_layer(scan: Scan) -> LayerTuple:
    """Describe a scan as an Image layer, in millimetres."""
    origin = Origin(scan.name, scan.spacing, scan.affine, scan.source, scan.slice_numbers)
    attributes = {
        "name": scan.name,
        **_upright(scan.spacing),
        "contrast_limits": contrast_limits(scan.voxels),
        "metadata": {METADATA_KEY: origin},
    }
    return scan.voxels, attributes, "image"


def scan_from_layer(layer: "Image") -> Scan:
    """Read a scan out of an Image layer.

    Parameters
    ----------
    layer
        Any Image layer; of ours, its `Origin` gives the geometry, else its scale.

    Raises
    ------
    InputError
        The layer is not one grey-valued stack, or its voxel size is unknown.
    """
    if getattr(layer, "rgb", False):
        raise InputError(
            f"Layer {layer.name!r} is a colour image: a scan has one grey value a voxel."
        )
    if layer.multiscale:
        raise InputError(
            f"Layer {layer.name!r} is multiscale: open the full-resolution stack on its own."
        )
    if layer.ndim != 3:
        raise InputError(
            f"Layer {layer.name!r} has {layer.ndim} axes: a scan has three, (slice, row, column)."
        )
    origin = origin_of(layer.metadata) or origin_by_scale(layer)
    voxels = np.asarray(layer.data)
    return Scan(
        voxels,
        origin.spacing,
        origin.affine,
        origin.name,
        origin.source,
        _numbers_for(origin, len(voxels)),
    )


def segmentation_to_layer(
    segmentation: Segmentation,
    image_layer: "Image | None" = None,
    *,
    name: str | None = None,
    flat: np.ndarray | None = None,
) -> LayerTuple:
    """Describe a segmentation as a Labels layer with the organs' names and colours.

    Parameters
    ----------
    segmentation
        What to show; overlapping organs are flattened by `Segmentation.labels`.
    image_layer
        The layer that was segmented: its transform, moved or rotated as it may be, is
        taken over. Without one the layer stands upright at the origin.
    name
        Name of the layer; the segmentation's own when not given.
    flat
        The labels, where they were flattened already, off the GUI thread.
    """
    from napari.utils.colormaps import DirectLabelColormap

    organs = segmentation.organs
    colors: dict[int | None, str] = {None: UNKNOWN_ORGAN_COLOR, 0: "transparent"}
    colors.update({organ.id: organ.color for organ in organs})
    origin = Origin(
        segmentation.name,
        segmentation.spacing,
        segmentation.affine,
        slice_numbers=segmentation.slice_numbers,
        organs=organs,
        provenance=dict(segmentation.provenance),
    )
    transform = _upright(segmentation.spacing) if image_layer is None else _transform(image_layer)
    attributes = {
        "name": name or segmentation.name,
        **transform,
        "colormap": DirectLabelColormap(color_dict=colors),
        # The status bar shows the organ under the cursor from this table.
        "features": {
            "index": [0, *(organ.id for organ in organs)],
            "name": ["background", *(organ.title for organ in organs)],
        },
        "opacity": 0.5,
        "metadata": {METADATA_KEY: origin},
    }
    labels = segmentation.labels().array if flat is None else flat
    return labels, attributes, "labels"


def segmentation_from_layer(layer: "Labels") -> Segmentation:
    """Read a segmentation out of a Labels layer, as it is painted now.

    Raises
    ------
    InputError
        The layer is not one stack of organ labels, or its voxel size is unknown.
    """
    if layer.multiscale or layer.ndim != 3:
        raise InputError(
            f"Layer {layer.name!r} is not one stack of labels (slice, row, column) "
            "at full resolution."
        )
    return segmentation_of_labels(
        np.asarray(layer.data), origin_of(layer.metadata) or origin_by_scale(layer)
    )


def segmentation_of_labels(labels: np.ndarray, origin: Origin) -> Segmentation:
    """Label image and `Origin` as a segmentation; its provenance says what was edited."""
    from gitract.baseline import edited_slices

    provenance = dict(origin.provenance)
    baseline = provenance.get("baseline")
    if baseline is not None and len(baseline) == len(labels):
        provenance["edited"] = edited_slices(labels, baseline)
    return Segmentation.of_labels(
        labels,
        spacing=origin.spacing,
        affine=origin.affine,
        organs=origin.organs,
        name=origin.name,
        slice_numbers=_numbers_for(origin, len(labels)),
        provenance=provenance,
    )


def painted_volumes(labels: np.ndarray, origin: Origin) -> dict[str, float]:
    """Volume of each organ of a label image in millilitres, by organ name."""
    voxel_ml = float(np.prod(origin.spacing)) / 1000.0
    return {organ.name: np.count_nonzero(labels == organ.id) * voxel_ml for organ in origin.organs}


def _numbers_for(origin: Origin, slices: int) -> tuple[int, ...] | None:
    """Slice numbers, unless the user cropped the layer since."""
    numbers = origin.slice_numbers
    return numbers if numbers is not None and len(numbers) == slices else None


def _upright(spacing: Spacing) -> dict[str, Any]:
    return {"scale": spacing, "units": ("mm",) * 3, "axis_labels": AXES}


def _transform(layer: "Layer") -> dict[str, Any]:
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.asarray(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def origin_by_scale(layer: "Layer") -> Origin:
    """Geometry of a layer that another reader made, from its scale.

    Raises
    ------
    InputError
        Nothing says how large a voxel is.
    """
    from gitract.scan import axial_affine

    millimetres = [_in_millimetres(unit) for unit in layer.units]
    scale = [abs(float(value)) for value in layer.scale]
    if None in millimetres:
        if np.allclose(scale, 1.0):
            raise InputError(
                f"The voxel size of layer {layer.name!r} is unknown (scale 1, in pixels): "
                "open the file with Load scan and give the spacing there."
            )
        millimetres = [1.0] * len(scale)
    mm = [value * factor for value, factor in zip(scale, millimetres, strict=True)]  # type: ignore[operator]
    spacing = (mm[0], mm[1], mm[2])
    source = Path(layer.source.path) if layer.source.path else None
    return Origin(layer.name, spacing, axial_affine(spacing), source)


def _in_millimetres(unit: Any) -> float | None:
    """Length of a unit in mm, or None where it is no length (pixel)."""
    import pint

    quantity = pint.get_application_registry().Quantity(1.0, str(unit))
    if not quantity.check("[length]"):
        return None
    return float(quantity.to("mm").magnitude)
