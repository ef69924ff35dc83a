"""How the patient lay on one day against another: a shift and a rotation, in mm.

It is found by SimpleITK: mutual information (Mattes et al., "PET-CT image registration in the
chest using free-form deformations", IEEE Trans Med Imaging 2003, 22:120), from coarse to
fine. It aligns the body as a whole; the bowel moves within it, and that is what remains to be
seen and corrected.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gitract.errors import InputError
from gitract.progress import Progress, Report, silent
from gitract.scan import NiftiAxes, Scan, axial_affine

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["Alignment", "align", "shift_in_words", "without_position"]

Shift = tuple[float, float, float]

_VOXEL_MM = 4.0
"""Voxels are averaged to about this size: a pair of whole abdomens then takes seconds, and
phantoms that were moved are found within half a millimetre and a tenth of a degree."""
_SEARCH_MM = range(-60, 61, 12)  # towards the head: how far apart two fields of view may begin
_COARSE, _LEVELS = 4, (4, 2, 1)  # shrinking, in voxels of `_VOXEL_MM`
_SAMPLED = (1.0, 1.0, 0.3)  # the share of voxels that is compared on each level
_SEED = 1  # ITK moves what it samples by less than a voxel at random
_STEPS = 100  # at most, for each level; most end after ten
_LEAST_SLICES = 4  # what ITK's smoothing takes along each axis
_LEAST_SHARE = 0.05  # of the fixed scan: with less in common no correlation is told
_TOWARDS = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))


@dataclass(frozen=True, eq=False)
class Alignment:
    """What lays the scan of one day upon that of another.

    Parameters
    ----------
    moving, fixed
        Names of the two scans.
    matrix
        4x4, patient coordinates of the moving scan to those of the fixed one, LPS in mm; a
        rotation and a shift.
    shift_mm
        How far the middle of the fixed scan is moved by it: to the left, to the back, to the
        head, in mm.
    rotation_deg
        The angle of the rotation.
    correlation_before, correlation
        Of the voxels that both scans have, from -1 to 1, without and with the alignment. The
        first is None where the scans hardly have any in common without it.
    """

    moving: str
    fixed: str
    matrix: np.ndarray
    shift_mm: Shift
    rotation_deg: float
    correlation_before: float | None
    correlation: float

    @property
    def is_identity(self) -> bool:
        """Whether the scans are left as they lie."""
        return bool(np.array_equal(self.matrix, np.eye(4)))

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        before = "–" if self.correlation_before is None else f"{self.correlation_before:.2f}"
        if self.is_identity:
            return (
                f"{self.moving} stays as it lies: no shift fits {self.fixed} better "
                f"(correlation {self.correlation:.2f})."
            )
        return (
            f"{self.moving} was laid upon {self.fixed}: {shift_in_words(self.shift_mm)}, turned "
            f"by {self.rotation_deg:.1f}°; correlation {before} before, "
            f"{self.correlation:.2f} after."
        )

    def as_json(self) -> dict[str, Any]:
        """The same as a dictionary of plain values."""
        return {
            "moving": self.moving,
            "fixed": self.fixed,
            "matrix": np.round(self.matrix, 6).tolist(),
            "shift_mm": [round(mm, 2) for mm in self.shift_mm],
            "rotation_deg": round(self.rotation_deg, 2),
            "correlation_before": self.correlation_before,
            "correlation": self.correlation,
        }


def without_position(scan: Scan) -> bool:
    """Whether nothing says where in the patient a scan lies.

    So it is with folders of slices, whose coordinates begin at the first voxel.
    """
    if isinstance(scan.stored, NiftiAxes):
        return not scan.stored.placed
    return bool(np.allclose(scan.affine, axial_affine(scan.spacing), atol=1e-6))


def shift_in_words(shift_mm: Shift) -> str:
    """A shift for people: ``3.1 mm left, 12.0 mm superior``; what is below 0.5 mm is left out.

    Parameters
    ----------
    shift_mm
        To the left, to the back and to the head, mm.
    """
    parts = [
        f"{abs(mm):.1f} mm {words[mm > 0]}"
        for mm, words in zip(shift_mm, _TOWARDS, strict=True)
        if abs(mm) >= 0.5
    ]
    return ", ".join(parts) or "less than 0.5 mm to any side"


def align(moving: Scan, fixed: Scan, *, report: Report = silent) -> Alignment:
    """Find the shift and rotation that lay one day upon another.

    The search begins where the coordinates say, or with the middles of the bodies upon each
    other, up to 60 mm further towards head or feet, whichever fits best at 16 mm a voxel. The
    same scans always give the same answer.

    Parameters
    ----------
    moving, fixed
        Scans of one patient; grids and spacings may differ.
    report
        Called with each step of the search.

    Returns
    -------
    Alignment
        The identity where nothing that was found correlates better than the scans do as they
        lie.

    Raises
    ------
    InputError
        A scan is too thin, or the two have nothing in common.
    """
    import SimpleITK as sitk

    moving_image, fixed_image = _image(moving), _image(fixed)
    title = f"Aligning {moving.name} to {fixed.name}"
    report(Progress(0, 0, title))
    try:
        found = _best_start(fixed_image, moving_image)
        _refine(fixed_image, moving_image, found, title, report)
    except RuntimeError as error:  # of ITK, which explains itself in pages
        raise InputError(
            f"{moving.name} could not be aligned to {fixed.name}: make sure that both show the "
            "same part of one patient."
        ) from error
    before, after = _correlations(fixed_image, moving_image, found)
    if after is None or (before is not None and before >= after):
        found, after = sitk.Euler3DTransform(), before
    if after is None:
        raise InputError(
            f"{moving.name} and {fixed.name} have nothing in common: make sure that both show "
            "the same part of one patient."
        )
    matrix = _matrix(found)
    middle = fixed.affine @ [*(np.array(fixed.shape) - 1) / 2, 1.0]
    left, back, head = (middle - np.linalg.solve(matrix, middle))[:3].tolist()
    cosine = np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)
    angle = float(np.degrees(np.arccos(cosine)))
    return Alignment(moving.name, fixed.name, matrix, (left, back, head), angle, before, after)


def _image(scan: Scan) -> "sitk.Image":
    """A scan as SimpleITK has it, of voxels averaged to about `_VOXEL_MM`."""
    import SimpleITK as sitk

    voxels = np.nan_to_num(scan.voxels.astype(np.float32), posinf=0.0, neginf=0.0)
    image = sitk.GetImageFromArray(voxels)
    directions = scan.affine[:3, :3] / scan.spacing
    image.SetSpacing(scan.spacing[::-1])
    image.SetDirection(directions[:, ::-1].ravel().tolist())  # of column, row, slice
    image.SetOrigin(scan.affine[:3, 3].tolist())
    factors = [max(1, round(_VOXEL_MM / mm)) for mm in image.GetSpacing()]
    factors = [
        min(factor, max(1, size // _LEAST_SLICES))
        for factor, size in zip(factors, image.GetSize(), strict=True)
    ]
    if min(image.GetSize()) < _LEAST_SLICES:
        size = " x ".join(str(n) for n in scan.shape)
        raise InputError(
            f"{scan.name} has {size} voxels: aligning takes at least {_LEAST_SLICES} each way."
        )
    return sitk.BinShrink(image, factors)


def _best_start(fixed: "sitk.Image", moving: "sitk.Image") -> "sitk.Euler3DTransform":
    """The shift to begin with: along the patient from where the scans, or the bodies, meet."""
    import SimpleITK as sitk

    coarse = [
        sitk.BinShrink(image, [min(_COARSE, max(1, n // _LEAST_SLICES)) for n in image.GetSize()])
        for image in (fixed, moving)
    ]
    middle = _middle_of_body(coarse[0])
    to_body = _middle_of_body(coarse[1]) - middle
    target = sitk.GetArrayViewFromImage(coarse[0])
    found: list[tuple[float, float, sitk.Euler3DTransform]] = []
    for shift in (np.zeros(3), to_body):
        for along in sorted(_SEARCH_MM, key=abs):
            start = sitk.Euler3DTransform()
            start.SetCenter(middle.tolist())
            start.SetTranslation((shift + (0.0, 0.0, along)).tolist())
            voxels = _laid_upon(coarse[0], coarse[1], start)
            seen = np.isfinite(voxels)
            fit = _correlation(target, voxels, seen)
            if fit is not None:
                found.append((float(seen.mean()), fit, start))
    if not found:
        raise RuntimeError("nothing in common")
    # What little two ends have in common may fit by chance.
    enough = 0.6 * max(share for share, _, _ in found)
    return max((one for one in found if one[0] >= enough), key=lambda one: one[1])[2]


def _method(image: "sitk.Image") -> "sitk.ImageRegistrationMethod":
    """How images are compared, and the transform is improved from coarse to fine."""
    import SimpleITK as sitk

    most = max(1, min(image.GetSize()) // _LEAST_SLICES)
    shrink = [min(level, most) for level in _LEVELS]
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # several add up in another order each time
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel(_SAMPLED, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([level * _VOXEL_MM / 4 for level in shrink])
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.02, numberOfIterations=_STEPS
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _refine(
    fixed: "sitk.Image",
    moving: "sitk.Image",
    transform: "sitk.Euler3DTransform",
    title: str,
    report: Report,
) -> None:
    """Improve `transform` level by level; what `report` raises ends it."""
    import SimpleITK as sitk

    method = _method(fixed)
    method.SetInitialTransform(transform, inPlace=True)
    ended: list[BaseException] = []

    def tell() -> None:
        if ended:  # on the levels that are left
            method.StopRegistration()
            return
        done = method.GetCurrentLevel() * _STEPS + method.GetOptimizerIteration()
        try:
            report(Progress(min(done, _STEPS * len(_LEVELS)), _STEPS * len(_LEVELS), title))
        except BaseException as error:  # noqa: BLE001 - through ITK it would come as another
            ended.append(error)
            method.StopRegistration()

    method.AddCommand(sitk.sitkIterationEvent, tell)
    method.Execute(fixed, moving)
    if ended:
        raise ended[0]


def _middle_of_body(image: "sitk.Image") -> np.ndarray:
    """Centre of mass of an image above its least value, LPS in mm."""
    import SimpleITK as sitk

    weights = sitk.GetArrayFromImage(image).astype(float)
    weights -= weights.min()
    if not weights.any():
        weights += 1.0
    places = [
        np.average(np.arange(size), weights=weights.sum(axis=others))
        for size, others in zip(weights.shape, ((1, 2), (0, 2), (0, 1)), strict=True)
    ]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(places[::-1]))


def _correlations(
    fixed: "sitk.Image", moving: "sitk.Image", found: "sitk.Transform"
) -> tuple[float | None, float | None]:
    """Correlation without and with a transform, on the voxels that both then have."""
    import SimpleITK as sitk

    target = sitk.GetArrayViewFromImage(fixed)
    without, aligned = (
        _laid_upon(fixed, moving, transform) for transform in (sitk.Euler3DTransform(), found)
    )
    seen = [np.isfinite(voxels) for voxels in (without, aligned)]
    both = seen[0] & seen[1]
    if both.mean() < _LEAST_SHARE:
        return _correlation(target, without, seen[0]), _correlation(target, aligned, seen[1])
    return _correlation(target, without, both), _correlation(target, aligned, both)


def _laid_upon(
    fixed: "sitk.Image", moving: "sitk.Image", transform: "sitk.Transform"
) -> np.ndarray:
    """Voxels of the moving image on the grid of the fixed one; NaN where it has none."""
    import SimpleITK as sitk

    laid = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, float("nan"))
    return np.asarray(sitk.GetArrayFromImage(laid))


def _correlation(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float | None:
    """Pearson's, None where there are too few voxels or no contrast."""
    if where.mean() < _LEAST_SHARE:
        return None
    a, b = one[where].astype(float), other[where].astype(float)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def _matrix(transform: "sitk.Euler3DTransform") -> np.ndarray:
    """Moving to fixed coordinates: ITK's transforms go from fixed to moving ones."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    to_moving = np.eye(4)
    to_moving[:3, :3] = rotation
    to_moving[:3, 3] = centre + np.array(transform.GetTranslation()) - rotation @ centre
    return np.linalg.inv(to_moving)
