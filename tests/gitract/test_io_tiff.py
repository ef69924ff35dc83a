"""TIFF stacks: voxel sizes, damage, and segmentations that come back as they went."""

import dataclasses
import json
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
from PIL import Image

import gitract.io.tiff
from gitract.errors import InputError
from gitract.io import (
    find_scans,
    holds_labels,
    label_names,
    read_scan,
    read_segmentation,
    write_scan,
    write_segmentation,
)
from gitract.organs import ORGANS, Organ
from gitract.scan import NiftiAxes, Scan, Segmentation, axial_affine
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


def test_an_image_is_no_stack(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", STACK[0])
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tiff", spacing=SPACING)
    assert_one_sentence(error, "a.tiff", "one slice")


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"bigtiff": True, "tile": (16, 16)}])
def test_compressed_stacks(tmp_path: Path, compression: str, layout: dict[str, Any]) -> None:
    keywords = {"photometric": "minisblack", "compression": compression, **layout}
    tifffile.imwrite(tmp_path / "a.tif", STACK, **keywords)
    scan = read_scan(tmp_path / "a.tif", spacing=SPACING)
    np.testing.assert_array_equal(scan.voxels, STACK)


def test_jpeg_in_tiff(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 250, 64).astype(np.uint8), (3, 48, 64))
    tifffile.imwrite(
        tmp_path / "a.tif", smooth, photometric="minisblack", compression="jpeg", tile=(16, 16)
    )
    voxels = read_scan(tmp_path / "a.tif", spacing=SPACING).voxels.astype(int)
    assert np.abs(voxels - smooth).max() < 10


def test_what_the_header_tells(tmp_path: Path) -> None:
    (found,) = find_scans(write_imagej(tmp_path / "a.tif"))
    assert (found.key, found.shape, found.problem) == ("a", STACK.shape, "")
    tifffile.imwrite(tmp_path / "b.tif", STACK, photometric="minisblack")
    (found,) = find_scans(tmp_path / "b.tif")
    assert found.shape == STACK.shape
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "b.tif")
    assert found.problem == str(error.value)


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
    {"compression": "lzw", "tile": (16, 16)},
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 0.999), byte=st.integers(0, 255), writer=st.sampled_from(["ours", *WRITERS])
)
def test_one_wrong_byte_is_read_or_refused_but_never_a_crash(
    tmp_path: Path, place: float, byte: int, writer: Any
) -> None:
    path = tmp_path / "a.tif"
    if writer == "ours":
        write_scan(Scan((STACK % 4).astype(np.int16), SPACING), path)
    else:
        tifffile.imwrite(path, STACK % 4, photometric="minisblack", **writer)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] = byte
    path.write_bytes(content)
    for read in (read_scan, read_segmentation, label_names, find_scans):
        try:
            read(path)  # type: ignore[operator]
        except InputError as error:
            assert str(error).endswith(".")
    holds_labels(path)


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"a table, not a TIFF"]
)
def test_what_is_no_tiff_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_scan(tmp_path / "a.tif")
    assert_one_sentence(error, "a.tif", "damaged or not a")


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


def write_pages(path: Path, stack: np.ndarray, changing: dict[str, Any], **keywords: Any) -> Path:
    """Slices written one by one, every other one in another way."""
    with tifffile.TiffWriter(path, **keywords) as out:
        for number, image in enumerate(stack):
            out.write(image, **(changing if number % 2 else {}))
    return path


@pytest.mark.parametrize(
    ("changing", "keywords"),
    [
        ({}, {}),
        ({}, {"shaped": False}),
        ({}, {"ome": True}),
        ({"compression": "zlib"}, {"shaped": False}),
        ({"compression": "lzw", "tile": (16, 16)}, {"shaped": False}),
    ],
)
def test_a_stack_written_page_by_page(
    tmp_path: Path, changing: dict[str, Any], keywords: dict[str, Any]
) -> None:
    path = write_pages(tmp_path / "a.tif", STACK, changing, **keywords)
    np.testing.assert_array_equal(read_scan(path, spacing=SPACING).voxels, STACK)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_stack_written_by_pillow(tmp_path: Path, compression: str | None) -> None:
    first, *others = (Image.fromarray(image) for image in STACK)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression=compression)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif", spacing=SPACING).voxels, STACK)


def test_two_stacks_in_one_file_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as out:
        for _ in range(2):
            out.write(STACK, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="2 separate images"):
        read_scan(tmp_path / "a.tif", spacing=SPACING)


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
    monkeypatch.undo()
    monkeypatch.setattr(gitract.io.tiff, "_MAX_SIDE", 23)
    with pytest.raises(InputError, match="24 a side"):
        read_scan(write_imagej(tmp_path / "a.tif"))


# --- writing scans ------------------------------------------------------------------------

OBLIQUE = np.array(
    [[0, 0.9, 0.56, 5], [0, 1.2, -0.42, -7.123456789], [-3, 0, 0, 1], [0, 0, 0, 1.0]]
)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        *((name, name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")),
        *((name, name) for name in ("float32", "float64")),
        ("float16", "float32"),
        ("longdouble", "float64"),
        ("int64", "int32"),
        (">u2", "uint16"),
        (">i2", "int16"),
    ],
)
def test_scans_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, stored: str, big: bool
) -> None:
    if big:
        monkeypatch.setattr(gitract.io.tiff, "_MAX_CLASSIC_BYTES", 0)
    voxels = (STACK % 120).astype(dtype)
    scan = Scan(
        voxels,
        SPACING,
        OBLIQUE,
        "case1",
        slice_numbers=(1, 2, 3, 4, 5, 6),
        stored=NiftiAxes(0, 1, 2),
    )
    path = write_scan(scan, tmp_path / "a.tif")
    again = read_scan(path)
    assert again.voxels.dtype == stored
    np.testing.assert_array_equal(again.voxels, voxels)
    np.testing.assert_array_equal(again.affine, scan.affine)
    for field in ("spacing", "name", "slice_numbers", "stored"):
        assert getattr(again, field) == getattr(scan, field)
    assert not holds_labels(path)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff == big
        assert tiff.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert tiff.series[0].axes == "ZYX"
        np.testing.assert_array_equal(tiff.asarray(), voxels)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    voxels=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32]),
        st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(1, 5)),
        elements=st.integers(0, 9),
    ),
    spacing=st.tuples(*[st.floats(0.01, 50)] * 3),
)
def test_the_spacing_is_there_for_programs_that_do_not_know_our_notes(
    tmp_path: Path, voxels: np.ndarray, spacing: tuple[float, float, float]
) -> None:
    path = write_scan(Scan(voxels, spacing, name="a"), tmp_path / "a.tif")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"gitract scan", b"another scan"))
    scan = read_scan(path)
    assert scan.spacing == pytest.approx(spacing, rel=1e-5)
    np.testing.assert_array_equal(scan.voxels, voxels)


def test_integers_of_64_bits_must_fit_into_32(tmp_path: Path) -> None:
    voxels = STACK.astype(np.uint64)
    voxels[0, 0, 0] = 2**32 - 1
    assert (
        read_scan(write_scan(Scan(voxels, SPACING), tmp_path / "a.tif")).voxels.dtype == np.uint32
    )
    voxels[0, 0, 0] = 2**32
    with pytest.raises(InputError) as error:
        write_scan(Scan(voxels, SPACING), tmp_path / "b.tif")
    assert_one_sentence(error, "32 bits", ".nii.gz")
    assert os.listdir(tmp_path) == ["a.tif"]


def test_a_given_spacing_keeps_the_directions_of_our_notes(tmp_path: Path) -> None:
    path = write_scan(Scan(STACK, SPACING, OBLIQUE), tmp_path / "a.tif")
    scan = read_scan(path, spacing=(6, 3, 1.4))
    np.testing.assert_allclose(scan.affine[:3, :3], OBLIQUE[:3, :3] * 2)


def test_a_scan_cropped_elsewhere_loses_our_geometry(tmp_path: Path) -> None:
    with tifffile.TiffFile(write_scan(Scan(STACK, SPACING, OBLIQUE), tmp_path / "a.tif")) as tiff:
        info = (tiff.imagej_metadata or {})["Info"]
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "mm", "Info": info}
    scan = read_scan(write_imagej(tmp_path / "b.tif", STACK[2:], metadata=metadata))
    np.testing.assert_allclose(scan.affine, axial_affine(SPACING), rtol=1e-5)
    assert scan.name == "b"


# --- segmentations ------------------------------------------------------------------------


def assert_same(one: Segmentation, other: Segmentation) -> None:
    np.testing.assert_array_equal(one.labels().array, other.labels().array)
    np.testing.assert_allclose(one.affine, other.affine)
    for field in ("spacing", "organs", "name", "slice_numbers", "provenance", "stored"):
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
        stored=NiftiAxes(0, 2, 1),
        provenance={"model": "small", "baseline": ["aé", None, 3.5], "edited": [1, 2]},
    )
    path = write_segmentation(written, tmp_path / "out.tif")
    assert_same(read_segmentation(path), written)
    assert holds_labels(path)
    assert label_names(path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.tif"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert not holds_labels(path)
    assert label_names(path) == ["1", "2", "3"]
    tifffile.imwrite(path, labels)
    with pytest.raises(InputError, match="give the spacing"):
        read_segmentation(path)
    assert read_segmentation(path, spacing=SPACING).spacing == SPACING


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_labels_are_whole_numbers_of_any_type(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (STACK % 4).astype(dtype), photometric="minisblack")
    segmentation = read_segmentation(tmp_path / "a.tif", spacing=SPACING)
    np.testing.assert_array_equal(segmentation.labels().array, STACK % 4)


def test_labels_without_a_place_take_that_of_their_scan(tmp_path: Path) -> None:
    scan = Scan(STACK, SPACING, OBLIQUE, "case1", stored=NiftiAxes())
    tifffile.imwrite(tmp_path / "a.tif", STACK % 4, photometric="minisblack")
    segmentation = read_segmentation(tmp_path / "a.tif", scan=scan)
    np.testing.assert_array_equal(segmentation.affine, OBLIQUE)
    assert (segmentation.name, segmentation.stored) == ("case1", NiftiAxes())
    tifffile.imwrite(tmp_path / "b.tif", STACK[1:] % 4, photometric="minisblack")
    with pytest.raises(InputError) as error:
        read_segmentation(tmp_path / "b.tif", scan=scan)
    assert_one_sentence(error, "b.tif", "5 x 20 x 24", "6 x 20 x 24")


def test_values_get_the_organs_that_are_chosen(tmp_path: Path) -> None:
    path = write_imagej(tmp_path / "a.tif", (STACK % 4).astype(np.uint8))
    chosen = {"1": "stomach", "2": "-", "3": "my new organ"}
    segmentation = read_segmentation(path, choices=chosen)
    masks = {
        organ.name: mask
        for organ, mask in zip(segmentation.organs, segmentation.masks, strict=True)
    }
    np.testing.assert_array_equal(masks["stomach"], STACK % 4 == 1)
    np.testing.assert_array_equal(masks["my_new_organ"], STACK % 4 == 3)
    assert not masks["small_bowel"].any()


def test_files_of_the_first_version_come_back(tmp_path: Path) -> None:
    notes = {
        "format": "gitract segmentation",
        "name": "case1_day0",
        "shape": [6, 20, 24],
        "spacing": list(SPACING),
        "affine": OBLIQUE.tolist(),
        "organs": [{"id": 3, "name": "stomach", "color": "#d9467e"}],
        "slice_numbers": [1, 2, 3, 4, 5, 6],
        "provenance": {"baseline": [1, 2]},
    }
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "mm", "Info": json.dumps(notes)}
    labels = (STACK % 2 * 3).astype(np.uint8)
    path = write_imagej(tmp_path / "a.tif", labels, metadata=metadata)
    segmentation = read_segmentation(path)
    np.testing.assert_array_equal(segmentation.masks[0], labels == 3)
    np.testing.assert_array_equal(segmentation.affine, OBLIQUE)
    assert [organ.name for organ in segmentation.organs] == ["stomach"]
    assert segmentation.slice_numbers == (1, 2, 3, 4, 5, 6)
    assert segmentation.provenance == {"baseline": [1, 2]}
    assert holds_labels(path)
    del notes["organs"]
    metadata["Info"] = json.dumps(notes)
    with pytest.raises(InputError) as error:
        read_segmentation(write_imagej(path, labels, metadata=metadata))
    assert_one_sentence(error, "a.tif", "damaged")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.full((2, 8, 8), 9, np.uint8), "the value 9"),
        (np.full((2, 8, 8), 0.5, np.float32), "fractions"),
        (np.full((2, 8, 8), 256, np.uint16), "256"),
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
    assert not holds_labels(tmp_path / name)


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
        ("a.nrrd", "no suffix that can be written"),
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
