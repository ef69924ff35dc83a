"""TIFF stacks: voxel sizes, damage, and segmentations that come back as they went."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gitract.io.tiff
from gitract.errors import InputError
from gitract.io import is_segmentation_file, read_scan, read_segmentation, write_segmentation
from gitract.organs import ORGANS, Organ
from gitract.scan import Segmentation
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 0.7)
STACK = np.random.default_rng(0).integers(0, 4000, (6, 20, 24)).astype(np.uint16)


def write_imagej(path: Path, stack: np.ndarray = STACK, **changes: Any) -> Path:
    """An ImageJ stack with a spacing of (3, 1.5, 0.7) mm unless changed."""
    keywords: dict[str, Any] = {
        "resolution": (1 / 0.7, 1 / 1.5),
        "metadata": {"axes": "ZYX", "spacing": 3.0, "unit": "mm"},
    }
    tifffile.imwrite(path, stack, imagej=True, photometric="minisblack", **keywords | changes)
    return path


# --- reading scans ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_imagej_stack(tmp_path: Path, dtype: type) -> None:
    stack: np.ndarray = (STACK % 200).astype(dtype)
    scan = read_scan(write_imagej(tmp_path / "patient.tif", stack))
    np.testing.assert_array_equal(scan.voxels, stack)
    assert scan.voxels.dtype == dtype
    assert scan.voxels.dtype.isnative
    assert scan.spacing == pytest.approx(SPACING)
    assert (scan.name, scan.source) == ("patient", tmp_path / "patient.tif")


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("cm", 10), ("micron", 1e-3), (r"\u00B5m", 1e-3), ("inch", 25.4)]
)
def test_imagej_units(tmp_path: Path, unit: str, mm: float) -> None:
    path = write_imagej(
        tmp_path / "a.tif",
        resolution=(mm / 0.7, mm / 1.5),
        metadata={"axes": "ZYX", "spacing": -3.0 / mm, "unit": unit},
    )
    assert read_scan(path).spacing == pytest.approx(SPACING, rel=1e-5)


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("cm", 10), ("µm", 1e-3)])
def test_ome_units(tmp_path: Path, unit: str, mm: float) -> None:
    sizes = {
        f"PhysicalSize{axis}{what}": value
        for axis, size in zip("ZYX", SPACING, strict=True)
        for what, value in (("", size / mm), ("Unit", unit))
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    scan = read_scan(tmp_path / "a.ome.tif")
    assert scan.spacing == pytest.approx(SPACING)
    np.testing.assert_array_equal(scan.voxels, STACK)


@pytest.mark.parametrize("keywords", [{}, {"imagej": True}, {"metadata": None}, {"ome": True}])
def test_spacing_must_be_known(tmp_path: Path, keywords: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", **keywords)
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tif")
    assert_one_sentence(error, "a.tif", "give the spacing")
    scan = read_scan(tmp_path / "a.tif", spacing=SPACING)
    assert scan.spacing == SPACING
    np.testing.assert_array_equal(scan.voxels, STACK)


@pytest.mark.parametrize("unit", ["pixel", "furlong", None])
def test_unknown_units_are_no_spacing(tmp_path: Path, unit: str | None) -> None:
    metadata = {"axes": "ZYX", "spacing": 3.0} | ({"unit": unit} if unit else {})
    with pytest.raises(InputError, match="give the spacing"):
        read_scan(write_imagej(tmp_path / "a.tif", metadata=metadata))


def test_given_spacing_wins(tmp_path: Path) -> None:
    assert read_scan(write_imagej(tmp_path / "a.tif"), spacing=(5, 2, 2)).spacing == (5, 2, 2)


def test_an_image_is_a_stack_of_one_slice(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", STACK[0])
    assert read_scan(tmp_path / "a.tiff", spacing=SPACING).shape == (1, 20, 24)


def test_thin_stacks_are_no_colours(tmp_path: Path) -> None:
    thin = STACK[:3, :5, :4]
    scan = read_scan(write_imagej(tmp_path / "a.tif", thin))
    np.testing.assert_array_equal(scan.voxels, thin)


WRITERS: list[dict[str, Any]] = [
    {"imagej": True},
    {"imagej": True, "compression": "zlib"},
    {},
    {"compression": "zlib"},
    {"metadata": None},
    {"ome": True},
    {"ome": True, "compression": "zlib"},
    {"bigtiff": True, "metadata": None},
    {"byteorder": ">", "metadata": None},
]


def write_truncated(path: Path, keywords: dict[str, Any], share: float) -> None:
    tifffile.imwrite(path, STACK, photometric="minisblack", **keywords)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("keywords", WRITERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_truncated_files_are_damaged(
    tmp_path: Path, keywords: dict[str, Any], share: float
) -> None:
    write_truncated(tmp_path / "a.tif", keywords, share)
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tif", spacing=SPACING)
    assert_one_sentence(error, "a.tif", "damaged")


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.floats(0, 1), st.sampled_from(WRITERS))
def test_a_truncated_stack_is_whole_or_refused(
    tmp_path: Path, share: float, keywords: dict[str, Any]
) -> None:
    write_truncated(tmp_path / "a.tif", keywords, share)
    try:
        voxels = read_scan(tmp_path / "a.tif", spacing=SPACING).voxels
    except InputError as error:
        assert share < 1
        assert "damaged" in str(error)
    else:
        np.testing.assert_array_equal(voxels, STACK)


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"a table, not a TIFF"]
)
def test_what_is_no_tiff_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tif")
    assert_one_sentence(error, "a.tif", "damaged or not a TIFF")


@pytest.mark.parametrize(
    ("stack", "keywords", "reason"),
    [
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb"}, "colour"),
        (np.zeros((4, 8, 8, 3), np.uint8), {"photometric": "rgb"}, "colour"),
        (np.zeros((2, 3, 8, 8), np.uint8), {"photometric": "minisblack"}, "4 axes"),
        (np.zeros((2, 8, 8), np.complex64), {"photometric": "minisblack"}, "complex64"),
        (np.full((2, 8, 8), np.nan, np.float32), {"photometric": "minisblack"}, "NaN"),
        (np.full((2, 8, 8), np.inf, np.float32), {"photometric": "minisblack"}, "infinite"),
    ],
)
def test_what_is_no_scan(
    tmp_path: Path, stack: np.ndarray, keywords: dict[str, Any], reason: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack, **keywords)
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tif", spacing=SPACING)
    assert_one_sentence(error, "a.tif", reason)


def test_pages_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(STACK[0])
        out.write(STACK[0, :10])
    with pytest.raises(InputError, match="2 separate images"):
        read_scan(tmp_path / "a.tif", spacing=SPACING)


def test_absurd_sizes_are_refused_before_they_are_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitract.io.tiff, "_MAX_VOXELS", STACK.size - 1)
    with pytest.raises(InputError, match=f"{STACK.size} voxels"):
        read_scan(write_imagej(tmp_path / "a.tif"))


# --- segmentations ------------------------------------------------------------------------


def assert_same(one: Segmentation, other: Segmentation) -> None:
    np.testing.assert_array_equal(one.labels().array, other.labels().array)
    np.testing.assert_allclose(one.affine, other.affine)
    for field in ("spacing", "organs", "name", "slice_numbers", "provenance"):
        assert getattr(one, field) == getattr(other, field)


def test_everything_comes_back(tmp_path: Path) -> None:
    oblique = np.array([[0, 0.6, 0.8, 5], [0, 0.8, -0.6, -7], [-3, 0, 0, 1], [0, 0, 0, 1]])
    written = dataclasses.replace(
        l_phantom(),
        spacing=(3.0, 1.0, 1.0),
        affine=oblique,
        name="Müller, day 3 μ",
        slice_numbers=(7, 8, 9, 10, 11),
        organs=(*ORGANS[:2], Organ(9, "duodenum", "#123456")),
        provenance={"model": "small", "baseline": ["aé", None, 3.5], "edited": [1, 2]},
    )
    path = write_segmentation(written, tmp_path / "out.tif")
    assert_same(read_segmentation(path), written)
    assert is_segmentation_file(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.tif"]


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    labels=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 3)
    ),
    spacing=st.tuples(*[st.floats(0.01, 50)] * 3),
)
def test_any_labels_come_back(
    tmp_path: Path, labels: np.ndarray, spacing: tuple[float, float, float]
) -> None:
    written = Segmentation.of_labels(labels, spacing=spacing)
    assert_same(read_segmentation(write_segmentation(written, tmp_path / "a.tif")), written)


def test_other_programs_see_the_voxel_size(tmp_path: Path) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "a.tif")
    scan = read_scan(path)
    assert scan.spacing == pytest.approx((3.0, 1.5, 0.7), rel=1e-5)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.imagej_metadata is not None
        assert tiff.imagej_metadata["slices"] == 5
        assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_a_stack_cropped_elsewhere_loses_our_geometry(tmp_path: Path) -> None:
    written = dataclasses.replace(l_phantom(), provenance={"baseline": [1, 2, 3, 4, 5]})
    path = write_segmentation(written, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tiff:
        stack, info = tiff.asarray(), (tiff.imagej_metadata or {})["Info"]
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "mm", "Info": info}
    cropped = read_segmentation(write_imagej(tmp_path / "b.tif", stack[2:], metadata=metadata))
    assert cropped.shape == (3, 9, 12)
    assert cropped.provenance == {}
    assert cropped.spacing == pytest.approx(SPACING)


def test_foreign_labels(tmp_path: Path) -> None:
    labels = (STACK % 4).astype(np.uint16)
    path = write_imagej(tmp_path / "labels.tif", labels)
    segmentation = read_segmentation(path)
    np.testing.assert_array_equal(segmentation.labels().array, labels)
    assert segmentation.spacing == pytest.approx(SPACING)
    assert not is_segmentation_file(path)
    tifffile.imwrite(path, labels)
    with pytest.raises(InputError, match="give the spacing"):
        read_segmentation(path)
    assert read_segmentation(path, spacing=SPACING).spacing == SPACING


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.full((2, 8, 8), 9, np.uint8), "Label value 9"),
        (np.ones((2, 8, 8), np.float32), "float32"),
    ],
)
def test_what_is_no_label_stack(tmp_path: Path, labels: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_segmentation(write_imagej(tmp_path / "a.tif", labels))
    assert_one_sentence(error, "a.tif", reason)


@pytest.mark.parametrize("name", ["missing.tif", "text.tif", "scan.tif", "."])
def test_what_is_not_ours_is_no_segmentation(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.tif").write_text("no TIFF")
    write_imagej(tmp_path / "scan.tif")
    assert not is_segmentation_file(tmp_path / name)


# --- failed writes ------------------------------------------------------------------------

Fault = Callable[..., None]


def disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fault", "raised"), [(disk_full, InputError), (interrupted, KeyboardInterrupt)]
)
@pytest.mark.parametrize("place", ["tifffile.imwrite", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    raised: type[BaseException],
    place: str,
) -> None:
    path = write_segmentation(l_phantom(), tmp_path / "a.tif")
    before = path.read_bytes()
    monkeypatch.setattr(place, fault)
    with pytest.raises(raised) as error:
        write_segmentation(abdomen_phantom(slices=3)[1], path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.tif"]
    if raised is InputError:
        assert_one_sentence(error, "a.tif", "No space left")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere/a.tif", "does not exist"),
        ("file.txt/a.csv", "does not exist"),
        ("protected.tif", "read-only"),
        ("folder.tif", "is a folder"),
        ("file.png", "is a file"),
        ("full.png", "other files, such as letter.txt"),
        ("a.nii.gz", "no suffix that can be written"),
        ("a", "no suffix that can be written"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "full.png").mkdir()
    for name in ("file.txt", "file.png", "protected.tif", "full.png/letter.txt"):
        (tmp_path / name).write_text("keep me")
    (tmp_path / "protected.tif").chmod(0o444)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        write_segmentation(l_phantom(), tmp_path / target)
    assert_one_sentence(error, Path(target).name, reason)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "protected.tif").read_text() == "keep me"
