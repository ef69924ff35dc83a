"""Scan <-> Image layer and Segmentation <-> Labels layer: scale, units, colours, metadata.

No Qt here: the reader and the writer use it too. What napari has no field for (true
spacing, patient coordinates, organ table, provenance) travels in
``layer.metadata["gitract"]`` as an `Origin`. A user may move, scale or rotate a layer;
its `Origin` still knows the scan's own geometry, and a segmentation takes over the
transform that the image has now.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gitract.change import GAINED, LOST
from gitract.errors import InputError
from gitract.organs import IGNORE, ORGANS, Organ
from gitract.orientation import hangs_reversed
from gitract.scan import (
    DicomSeries,
    NiftiAxes,
    Scan,
    Segmentation,
    Spacing,
    Stored,
    axial_affine,
    united,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

__all__ = [
    "AXES",
    "MAP_KEY",
    "LayerTuple",
    "Origin",
    "Removed",
    "contour_layers",
    "contrast_limits",
    "is_drawn_on",
    "origin_by_scale",
    "origin_for",
    "origin_of",
    "origin_of_image_like",
    "painted_volumes",
    "scan_from_layer",
    "scan_to_layer",
    "labels_and_origin",
    "segmentation_from_layer",
    "segmentation_of_labels",
    "segmentation_to_layer",
    "joined",
    "organ_attributes",
    "transform_of",
    "uncertainty_to_layer",
    "usual_suffix",
    "with_returned",
]

AXES = ("z", "y", "x")
MAP_KEY = "gitract-map"
"""In the metadata of an Image layer that shows what is known of a scan, and is none."""
METADATA_KEY = "gitract"
TOGETHER = "together"
"""In the provenance of labels with a baseline: the ids that stood in the layer it is of."""
UNKNOWN_ORGAN_COLOR = "#808080"

LayerTuple = tuple[np.ndarray, dict[str, Any], str]


class Removed(NamedTuple):
    """An organ that the user took out of a layer's table.

    `place` is where it stood there, `voxel` one of those that were emptied with it, or None
    where nothing of it was painted.
    """

    organ: Organ
    place: int
    voxel: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Origin:
    """What a layer remembers of the scan or segmentation that it shows.

    Parameters
    ----------
    name, spacing, affine, shape, source, slice_numbers, stored, remarks
        As in `gitract.scan.Scan`.
    organs, provenance
        As in `gitract.scan.Segmentation`; of a Labels layer only. `IGNORE` is never among the
        organs: each Labels layer may hold its value.
    removed
        Organs taken out of the table, the last one last. Their ids are given to no other, since
        an undo brings their voxels back.
    """

    name: str
    spacing: Spacing
    affine: np.ndarray
    shape: tuple[int, int, int]
    source: Path | None = None
    slice_numbers: tuple[int, ...] | None = None
    organs: tuple[Organ, ...] = ORGANS
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stored: Stored | None = None
    remarks: tuple[str, ...] = ()
    removed: tuple[Removed, ...] = ()


def origin_of(metadata: Mapping[str, Any]) -> Origin | None:
    """The `Origin` in a layer's metadata, or None where the layer is not of our making."""
    origin = metadata.get(METADATA_KEY)
    return origin if isinstance(origin, Origin) else None


def is_drawn_on(labels: "Labels", image: "Image") -> bool:
    """Whether labels were made from an image, as far as the two know."""
    origin, of_image = origin_of(labels.metadata), origin_of(image.metadata)
    if origin is None:
        return False
    if of_image is None:
        return origin.name == image.name
    return origin.name == of_image.name and np.allclose(origin.affine, of_image.affine, atol=0.01)


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
    """Describe a scan as an Image layer, in millimetres, as it hangs on a light box."""
    origin = _origin_of_scan(scan)
    attributes = {
        "name": scan.name,
        **_hung(scan),
        "contrast_limits": contrast_limits(scan.voxels),
        "metadata": {METADATA_KEY: origin},
    }
    return scan.voxels, attributes, "image"


def _origin_of_scan(scan: Scan) -> Origin:
    return Origin(
        scan.name,
        scan.spacing,
        scan.affine,
        scan.shape,
        scan.source,
        scan.slice_numbers,
        stored=scan.stored,
        remarks=scan.remarks,
    )


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
    _check_whole(origin, voxels.shape)
    return Scan(
        voxels,
        origin.spacing,
        origin.affine,
        origin.name,
        origin.source,
        origin.slice_numbers,
        origin.stored,
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
        taken over. Without one the layer hangs like its scan would.
    name
        Name of the layer; the segmentation's own when not given.
    flat
        The labels, where they were flattened already, off the GUI thread.
    """
    organs = tuple(organ for organ in segmentation.organs if organ != IGNORE)
    shown = None if image_layer is None else origin_of(image_layer.metadata)
    origin = Origin(
        segmentation.name,
        segmentation.spacing,
        segmentation.affine,
        segmentation.shape,
        None if shown is None else shown.source,
        slice_numbers=segmentation.slice_numbers,
        organs=organs,
        provenance=dict(segmentation.provenance),
        stored=segmentation.stored,
        remarks=segmentation.remarks,
    )
    transform = _hung(segmentation) if image_layer is None else transform_of(image_layer)
    attributes = {
        "name": name or segmentation.name,
        **transform,
        **organ_attributes(organs),
        "metadata": {METADATA_KEY: origin},
    }
    labels = segmentation.labels().array if flat is None else flat
    return labels, attributes, "labels"


def organ_attributes(organs: Sequence[Organ]) -> dict[str, Any]:
    """The names and colours of organs, for a Labels layer; it can show what to ignore, too."""
    from napari.utils.colormaps import DirectLabelColormap

    if all(organ.id != IGNORE.id for organ in organs):
        organs = (*organs, IGNORE)
    colors: dict[int | None, str] = {None: UNKNOWN_ORGAN_COLOR, 0: "transparent"}
    colors.update({organ.id: organ.color for organ in organs})
    return {
        "colormap": DirectLabelColormap(color_dict=colors),
        # The status bar shows the organ under the cursor from this table.
        "features": {
            "index": [0, *(organ.id for organ in organs)],
            "name": ["background", *(organ.title for organ in organs)],
        },
        "opacity": 0.5,
    }


def uncertainty_to_layer(entropy: np.ndarray, image_layer: "Image") -> LayerTuple:
    """Describe an uncertainty, 0 to 1 ``(slice, row, column)``, as an Image layer over its scan.

    Its metadata says that it is none of the scans to choose from.
    """
    attributes = {
        "name": f"{image_layer.name} · uncertainty",
        **transform_of(image_layer),
        "colormap": "inferno",
        "contrast_limits": (0.0, 1.0),
        "blending": "additive",
        "opacity": 0.7,
        "metadata": {MAP_KEY: "uncertainty"},
    }
    return entropy, attributes, "image"


def change_to_layer(change: np.ndarray, image_layer: "Image") -> LayerTuple:
    """Describe what a new model changes (`gitract.change`) as a Labels layer over its scan.

    Its metadata says that it holds no contours to choose from.
    """
    from napari.utils.colormaps import DirectLabelColormap

    attributes = {
        "name": f"{image_layer.name} · what changes",
        **transform_of(image_layer),
        "colormap": DirectLabelColormap(
            color_dict={None: "transparent", 0: "transparent", GAINED: "#4caf50", LOST: "#e57373"}
        ),
        "features": {"index": [0, GAINED, LOST], "name": ["as before", "new", "gone"]},
        "metadata": {MAP_KEY: "change"},
    }
    return change, attributes, "labels"


def contour_layers(
    segmentation: Segmentation, image_layer: "Image | None" = None, *, name: str
) -> list[LayerTuple]:
    """Describe contours as Labels layers: as many as it takes to lose no other structure.

    A Labels layer holds one organ a voxel. The organs of the models stand together in the
    first layer, as `Segmentation.labels` flattens them, and so does what a user painted into
    their layer; any other structure, such as a target volume, goes to the first layer where
    it overlaps nothing.

    Parameters
    ----------
    segmentation, image_layer
        As in `segmentation_to_layer`.
    name
        Of the first layer; the others also name what is on them.
    """
    models = {organ.id for organ in ORGANS}
    pairs = list(zip(segmentation.organs, segmentation.masks, strict=True))
    groups = [[(organ, mask) for organ, mask in pairs if organ.id in models]]
    others = [(organ, mask) for organ, mask in pairs if organ.id not in models]
    others = _with_painted(groups[0], others, segmentation.provenance.get(TOGETHER, ()))
    covered = [np.any([mask for _, mask in groups[0]], axis=0) if groups[0] else None]
    if "baseline" in segmentation.provenance and groups[0]:
        covered = [np.ones(segmentation.shape, dtype=np.bool_)]  # it knows those organs alone
    for organ, mask in others:
        for place, taken in enumerate(covered):
            if taken is None or not (taken & mask).any():
                groups[place].append((organ, mask))
                covered[place] = mask if taken is None else taken | mask
                break
        else:
            groups.append([(organ, mask)])
            covered.append(mask)
    groups[0].sort(key=lambda pair: segmentation.organs.index(pair[0]))
    layers = []
    for place, group in enumerate(groups):
        organs = tuple(organ for organ, _ in group)
        part = replace(segmentation, masks=np.stack([m for _, m in group]), organs=organs)
        if place:  # what is known of slices is about the organs of the models
            part = replace(part, provenance={}, remarks=())
        title = name if not place else f"{name} · {', '.join(organ.title for organ in organs)}"
        layers.append(segmentation_to_layer(part, image_layer, name=title))
    return layers


def _with_painted(
    first: list[tuple[Organ, np.ndarray]],
    others: list[tuple[Organ, np.ndarray]],
    painted: Collection[int],
) -> list[tuple[Organ, np.ndarray]]:
    """Move to the first layer what was painted there; the rest.

    Not what overlaps it: that was on another layer, too, when both were saved.
    """
    rest: list[tuple[Organ, np.ndarray]] = []
    for organ, mask in others:
        apart = not any((mask & other).any() for _, other in first)
        (first if organ.id in painted and apart else rest).append((organ, mask))
    return rest


def segmentation_from_layer(layer: "Labels", scan: Scan | None = None) -> Segmentation:
    """Read a segmentation out of a Labels layer, as it is painted now.

    Parameters
    ----------
    layer, scan
        As of `labels_and_origin`.

    Raises
    ------
    InputError
        The layer is not one stack of organ labels, or its voxel size is unknown.
    """
    return segmentation_of_labels(*labels_and_origin(layer, scan))


def labels_and_origin(layer: "Labels", scan: Scan | None = None) -> tuple[np.ndarray, Origin]:
    """What `segmentation_of_labels` makes a segmentation of, in a tenth of a second.

    Parameters
    ----------
    layer
        Any Labels layer; of ours, its `Origin` gives geometry and organs.
    scan
        What it was painted on: gives the geometry to a layer of the same size that is
        not ours.

    Returns
    -------
    tuple of numpy.ndarray and Origin
        The voxels of the layer, not copied; where they lie, and their organs.

    Raises
    ------
    InputError
        The layer is not one stack of labels, or its voxel size is unknown.
    """
    _check_stack(layer)
    origin = origin_of(layer.metadata)
    if origin is None and scan is not None and layer.data.shape == scan.shape:
        origin = _origin_of_scan(scan)
    return np.asarray(layer.data), origin or origin_by_scale(layer)


def _check_stack(layer: "Labels") -> None:
    if layer.multiscale or layer.ndim != 3:
        raise InputError(
            f"Layer {layer.name!r} is not one stack of labels (slice, row, column) "
            "at full resolution."
        )


def segmentation_of_labels(labels: np.ndarray, origin: Origin) -> Segmentation:
    """Label image and `Origin` as a segmentation; its provenance says what was edited.

    `IGNORE` is among its organs where a voxel has that value, and so is an organ that was
    removed and whose voxels an undo brought back.

    Raises
    ------
    InputError
        The image was cropped, or holds a value that is no organ's.
    """
    from gitract.baseline import edited_slices

    _check_whole(origin, labels.shape)
    organs = _painted_organs(labels, origin)
    provenance = dict(origin.provenance)
    baseline = provenance.get("baseline")
    if baseline is not None and len(baseline) == len(labels):
        provenance["edited"] = edited_slices(labels, baseline)
        provenance[TOGETHER] = [organ.id for organ in organs]
    return Segmentation.of_labels(
        labels,
        spacing=origin.spacing,
        affine=origin.affine,
        organs=organs,
        name=origin.name,
        slice_numbers=origin.slice_numbers,
        provenance=provenance,
        stored=origin.stored,
    )


def _painted_organs(labels: np.ndarray, origin: Origin) -> tuple[Organ, ...]:
    """The table of `origin` with what else its layer may hold, where a voxel does."""
    known = {organ.id for organ in origin.organs}
    others = {IGNORE.id, *(gone.organ.id for gone in origin.removed)} - known
    painted = {value for value in others if np.any(labels == value)}
    organs = with_returned(origin, painted).organs
    return (*organs, IGNORE) if IGNORE.id in painted else organs


def with_returned(origin: Origin, values: Collection[int]) -> Origin:
    """The origin whose table again has the removed organs that have voxels.

    Parameters
    ----------
    origin
        Of a Labels layer.
    values
        Label values that the layer holds; others than those of removed organs do not matter.

    Returns
    -------
    Origin
        Each organ is back where it stood. Where another has taken its name meanwhile it gets a
        number.
    """
    organs = list(origin.organs)
    for gone in reversed(origin.removed):  # each place is that before the later ones went
        if gone.organ.id in values:
            name = _unlike(gone.organ.name, {organ.name for organ in organs})
            organs.insert(gone.place, replace(gone.organ, name=name))
    kept = tuple(gone for gone in origin.removed if gone.organ.id not in values)
    return replace(origin, organs=tuple(organs), removed=kept)


def _unlike(name: str, taken: Collection[str]) -> str:
    """The name, or where it is taken the first of ``name_2``, ``name_3``, … that is not."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique


def joined(parts: Sequence[Segmentation]) -> Segmentation:
    """The contours of several layers of one scan together, as `contour_layers` parted them.

    What is known of the layer that a model drew goes for all. An organ in several layers
    is their union.

    Raises
    ------
    InputError
        The layers are of different scans, or give one id to different organs.
    """
    first = next((part for part in parts if part.provenance), parts[0])
    for part in parts:
        apart = part.shape != first.shape or not np.array_equal(part.affine, first.affine)
        if apart or (part.name, part.stored) != (first.name, first.stored):
            raise InputError(
                f"The layers of {first.name!r} and {part.name!r} are not of one scan: "
                "save them one by one."
            )
    organs, masks = united(
        pair for part in parts for pair in zip(part.organs, part.masks, strict=True)
    )
    if len({organ.id for organ in organs}) < len(organs):
        raise InputError(
            f"The layers of {first.name!r} give one id to different organs: save them one by one."
        )
    return replace(first, masks=masks, organs=organs)


def usual_suffix(stored: Stored | None) -> str:
    """The format that contours of a scan are most likely wanted in: that of the scan."""
    if isinstance(stored, DicomSeries):
        return ".rtstruct.dcm"
    return ".nii.gz" if isinstance(stored, NiftiAxes) else ".tif"


def painted_volumes(labels: np.ndarray, origin: Origin) -> dict[str, float]:
    """Volume of each organ of a label image in millilitres, by organ name."""
    voxel_ml = float(np.prod(origin.spacing)) / 1000.0
    return {organ.name: np.count_nonzero(labels == organ.id) * voxel_ml for organ in origin.organs}


def _check_whole(origin: Origin, shape: tuple[int, ...]) -> None:
    """Refuse a layer that was cropped: nothing says where in the patient the rest lies."""
    if tuple(shape) != origin.shape:
        size, read = (" x ".join(str(n) for n in one) for one in (shape, origin.shape))
        raise InputError(
            f"The layer of {origin.name!r} has {size} voxels where {read} were read: a cropped "
            "layer has lost its place in the patient, so open the whole one again."
        )


def _hung(item: Scan | Segmentation) -> dict[str, Any]:
    """Scale and transform that show slices as they hang: the front up, the right side left.

    The voxels stay as they are stored; where rows or columns run the other way, the
    layer's own affine reverses them on the screen.
    """
    matrix = np.eye(4)
    for axis in hangs_reversed(item.affine):
        matrix[axis, axis] = -1.0
        matrix[axis, 3] = (item.shape[axis] - 1) * item.spacing[axis]
    shown = {"scale": item.spacing, "units": ("mm",) * 3, "axis_labels": AXES}
    return shown if np.array_equal(matrix, np.eye(4)) else {**shown, "affine": matrix}


def transform_of(layer: "Layer") -> dict[str, Any]:
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.asarray(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def origin_of_image_like(
    layers: "Iterable[Layer]", shape: tuple[int, ...], scale: Sequence[float]
) -> Origin | None:
    """Where a layer lies that the user made over a scan: as the one image of its size does.

    Parameters
    ----------
    layers
        Of the viewer.
    shape, scale
        Of the layer in question.

    Returns
    -------
    Origin or None
        None where no scan has that size, or several have.
    """
    from napari.layers import Image

    found = {}
    for layer in layers:
        origin = origin_of(layer.metadata)
        fits = isinstance(layer, Image) and tuple(layer.data.shape) == tuple(shape)
        if origin is not None and fits and np.allclose(layer.scale, scale):
            found[origin.name, origin.affine.tobytes()] = replace(origin, remarks=())
    return next(iter(found.values())) if len(found) == 1 else None


def origin_for(layer: "Labels", others: "Iterable[Layer]" = ()) -> Origin:
    """The `Origin` of a Labels layer; where it has none, the one that it is to be given.

    Parameters
    ----------
    layer
        Any Labels layer.
    others
        The layers of the viewer, among which may be the scan that it was painted on.

    Raises
    ------
    InputError
        The layer is no stack; or it is not of our making, lies on no scan, and nothing says
        how large a voxel is.
    """
    _check_stack(layer)
    return (
        origin_of(layer.metadata)
        or origin_of_image_like(others, layer.data.shape, layer.scale)
        or origin_by_scale(layer)
    )


def origin_by_scale(layer: "Layer") -> Origin:
    """Geometry of a layer that another reader made, from its scale.

    Raises
    ------
    InputError
        Nothing says how large a voxel is.
    """
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
    slices, rows, columns = layer.data.shape
    shape = (slices, rows, columns)
    return Origin(layer.name, spacing, axial_affine(spacing), shape, source)


def _in_millimetres(unit: Any) -> float | None:
    """Length of a unit in mm, or None where it is no length (pixel)."""
    import pint

    quantity = pint.get_application_registry().Quantity(1.0, str(unit))
    if not quantity.check("[length]"):
        return None
    return float(quantity.to("mm").magnitude)
