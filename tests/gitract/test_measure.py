"""Measures of organs: exact on boxes, true on spheres, the same wherever the organ lies."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from gitract.cli.measure import measure as measure_command
from gitract.errors import Cancelled, InputError
from gitract.io import read_segmentation, write_scan, write_segmentation
from gitract.measure import HEADER, OrganMeasures, as_rows, csv_text, measure, surface_mm2
from gitract.organs import IGNORE, ORGANS, organ_named
from gitract.progress import Progress
from gitract.scan import Scan, Segmentation, Spacing, axial_affine, scaled_affine
from phantoms import abdomen_phantom, l_phantom
from sentences import assert_one_sentence

SPACING = (3.0, 1.5, 0.7)
STOMACH = organ_named("stomach")

spacings = st.tuples(*[st.floats(0.4, 6.0)] * 3)
angles = st.tuples(*[st.floats(-3.1, 3.1)] * 3)
corners = st.tuples(*[st.integers(0, 4)] * 3)
sizes = st.tuples(*[st.integers(1, 5)] * 3)
places = st.tuples(*[st.floats(-500, 500)] * 3)


def of_one(mask: np.ndarray, spacing: Spacing = SPACING, affine=None) -> Segmentation:
    return Segmentation(mask[None], spacing, affine, organs=(STOMACH,))  # type: ignore[arg-type]


def box(corner: tuple[int, ...], size: tuple[int, ...], shape=(11, 11, 11)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.bool_)
    mask[tuple(slice(at, at + long) for at, long in zip(corner, size, strict=True))] = True
    return mask


def oblique(spacing: Spacing, turns: tuple[float, ...], place: tuple[float, ...]) -> np.ndarray:
    """An affine that is turned about each axis in turn."""
    affine = np.eye(4)
    for axis, angle in enumerate(turns):
        turn = np.eye(4)
        one, other = (other for other in range(3) if other != axis)
        turn[[one, other], [one, other]] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        affine = turn @ affine
    affine[:3, 3] = place
    return scaled_affine(affine, spacing)


def ellipsoid(radii: tuple[float, ...], spacing: Spacing) -> np.ndarray:
    """A mask whose centre lies on no voxel's, on any grid."""
    shape = [int(2 * mm / step) + 6 for mm, step in zip(radii, spacing, strict=True)]
    middle = np.array(shape) / 2 - 0.3
    away = (np.moveaxis(np.indices(shape), 0, -1) - middle) * spacing / np.array(radii)
    return np.asarray((away**2).sum(axis=-1) <= 1)


# --- a box ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(corner=corners, size=sizes, spacing=spacings, turns=angles, place=places)
def test_a_box_is_measured_exactly(corner, size, spacing, turns, place) -> None:
    affine = oblique(spacing, turns, place)
    (found,) = measure(of_one(box(corner, size), spacing, affine))
    sides = np.array(size) * spacing
    middle = np.array(corner) + (np.array(size) - 1) / 2
    assert found.voxels == np.prod(size)
    assert found.volume_ml == pytest.approx(np.prod(sides) / 1000)
    assert found.length_mm == pytest.approx(sides[0])
    assert (found.first_slice, found.last_slice) == (corner[0], corner[0] + size[0] - 1)
    np.testing.assert_allclose(found.centroid, middle)
    expected = affine[:3, :3] @ middle + affine[:3, 3]
    np.testing.assert_allclose(found.centroid_lps_mm, expected, atol=1e-6)


def test_each_slice_has_its_part_of_the_volume() -> None:
    by_name = {one.organ.name: one for one in measure(l_phantom())}
    stomach = by_name["stomach"]
    voxel_ml = 3.0 * 1.5 * 0.7 / 1000
    bar_and_foot = 7 * 2 + 2 * 6
    expected = np.array([0, bar_and_foot + 5 * 2, bar_and_foot, bar_and_foot, 0]) * voxel_ml
    np.testing.assert_allclose(stomach.volume_by_slice_ml, expected)
    assert stomach.volume_ml == pytest.approx(l_phantom().volumes_ml["stomach"])
    assert stomach.largest_slice == 1


def test_the_length_counts_gaps() -> None:
    mask = box((1, 2, 2), (1, 3, 3)) | box((6, 2, 2), (2, 3, 3))
    (found,) = measure(of_one(mask))
    assert found.length_mm == pytest.approx(7 * 3.0)
    assert (found.first_slice, found.last_slice) == (1, 7)


def test_an_organ_that_is_absent_has_zeros_and_no_place() -> None:
    (found,) = measure(of_one(np.zeros((4, 5, 6), np.bool_)), Scan(np.ones((4, 5, 6)), SPACING))
    assert (found.voxels, found.volume_ml, found.length_mm, found.surface_cm2) == (0, 0, 0, 0)
    assert found.volume_by_slice_ml.tolist() == [0, 0, 0, 0]
    for value in (
        found.first_slice, found.last_slice, found.centroid, found.centroid_lps_mm,
        found.mean_intensity, found.sd_intensity, found.largest_slice,
    ):  # fmt: skip
        assert value is None
    assert found.cut_by == ()
    assert "nan" not in csv_text([found]).lower()


def test_an_organ_that_touches_the_edge_is_cut_and_has_its_volume_still() -> None:
    (inside,) = measure(of_one(box((1, 1, 1), (3, 3, 3))))
    (cut,) = measure(of_one(box((0, 1, 8), (3, 3, 3))))
    assert inside.cut_by == ()
    assert cut.cut_by == ("first slice", "last column")
    assert cut.volume_ml == pytest.approx(inside.volume_ml)


def test_what_is_ignored_is_not_measured() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1:3] = 3
    labels[2] = IGNORE.id
    found = measure(Segmentation.of_labels(labels, spacing=SPACING, organs=(*ORGANS, IGNORE)))
    assert [one.organ.name for one in found] == ["large_bowel", "small_bowel", "stomach"]


def test_where_organs_overlap_each_is_measured_whole() -> None:
    _, truth = abdomen_phantom()
    assert (truth.masks[1] & truth.masks[2]).any()
    for one in measure(truth):
        assert one.volume_ml == pytest.approx(truth.volumes_ml[one.organ.name])


# --- surface ----------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1.5, 1.5), (3, 1.5, 1.4), (5, 1, 1)])
@pytest.mark.parametrize("radius", [12, 25])
def test_the_surface_of_a_sphere(spacing: Spacing, radius: float) -> None:
    found = surface_mm2(ellipsoid((radius,) * 3, spacing), spacing)
    assert found == pytest.approx(4 * np.pi * radius**2, rel=0.02)


def test_the_surface_of_a_long_ellipsoid_along_each_axis() -> None:
    across, along = 15.0, 40.0
    bend = np.sqrt(1 - across**2 / along**2)
    expected = 2 * np.pi * across**2 * (1 + along / (across * bend) * np.arcsin(bend))  # prolate
    for axis in range(3):
        radii = tuple(along if axis == other else across for other in range(3))
        found = surface_mm2(ellipsoid(radii, (2.0, 1.5, 1.0)), (2.0, 1.5, 1.0))
        assert found == pytest.approx(expected, rel=0.04)


def test_a_hollow_organ_has_its_inner_surface_too() -> None:
    outer, inner = (ellipsoid((mm,) * 3, (1, 1, 1)) for mm in (20, 10))
    hollow = outer.copy()
    rest = [(big - small) // 2 for big, small in zip(outer.shape, inner.shape, strict=True)]
    hollow[tuple(slice(at, at + n) for at, n in zip(rest, inner.shape, strict=True))] &= ~inner
    expected = 4 * np.pi * (20**2 + 10**2)
    assert surface_mm2(hollow, (1, 1, 1)) == pytest.approx(expected, rel=0.03)


@settings(max_examples=30)
@given(corner=corners, spacing=spacings)
def test_an_organ_measures_the_same_wherever_it_lies(corner, spacing) -> None:
    shape = np.random.default_rng(3).random((4, 4, 4)) < 0.6
    found = []
    for at in ((2, 2, 2), corner):
        mask = np.zeros((12, 12, 12), np.bool_)
        mask[tuple(slice(i, i + 4) for i in at)] = shape
        found += measure(of_one(mask, spacing))
    here, there = found
    assert there.volume_ml == pytest.approx(here.volume_ml)
    assert there.surface_cm2 == pytest.approx(here.surface_cm2)
    assert there.length_mm == pytest.approx(here.length_mm)
    way = axial_affine(spacing)[:3, :3] @ np.subtract(corner, 2)
    np.testing.assert_allclose(
        np.subtract(there.centroid_lps_mm, here.centroid_lps_mm), way, atol=1e-9
    )


# --- intensity --------------------------------------------------------------------------


def test_the_intensity_is_that_of_the_organ_alone() -> None:
    mask = box((2, 3, 4), (2, 2, 2))
    voxels = np.full(mask.shape, 60_000, np.uint16)
    voxels[mask] = np.array([10, 20, 30, 40] * 2)
    (found,) = measure(of_one(mask), Scan(voxels, SPACING))
    assert found.mean_intensity == pytest.approx(25)
    assert found.sd_intensity == pytest.approx(np.sqrt(125))


def test_without_a_scan_there_is_no_intensity() -> None:
    (found,) = measure(of_one(box((2, 3, 4), (2, 2, 2))))
    assert found.mean_intensity is None
    assert found.sd_intensity is None


def test_voxels_without_a_finite_value_do_not_count() -> None:
    mask = box((2, 3, 4), (1, 1, 4))
    voxels = np.full(mask.shape, np.nan, np.float32)
    (nothing,) = measure(of_one(mask), Scan(voxels, SPACING))
    assert nothing.mean_intensity is None
    voxels[2, 3, 4:6] = 2.0, 4.0
    (found,) = measure(of_one(mask), Scan(voxels, SPACING))
    assert found.mean_intensity == pytest.approx(3)


def test_a_scan_of_another_size_or_place_is_refused() -> None:
    contours = of_one(box((2, 3, 4), (2, 2, 2)))
    with pytest.raises(InputError) as error:
        measure(contours, Scan(np.zeros((11, 11, 12)), SPACING, name="other"))
    assert_one_sentence(error, "other", "11 x 11 x 12", "choose the scan")
    moved = contours.affine.copy()
    moved[:3, 3] += 4.0, 0, 0
    with pytest.raises(InputError) as error:
        measure(contours, Scan(np.zeros((11, 11, 11)), SPACING, affine=moved, name="moved"))
    assert_one_sentence(error, "moved", "4.00 mm", "choose the scan")


# --- progress ---------------------------------------------------------------------------


def test_it_tells_how_far_it_is_and_can_be_cancelled() -> None:
    told: list[Progress] = []
    measure(l_phantom(), report=told.append)
    assert [one.done for one in told] == [0, 1, 2, 3]
    assert {one.total for one in told} == {3}

    def cancel(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        measure(l_phantom(), report=cancel)


# --- the table --------------------------------------------------------------------------


def test_the_csv_holds_what_was_measured() -> None:
    scan, truth = abdomen_phantom()
    measures = measure(replace(truth, name=scan.name), scan)
    rows = list(csv.DictReader(csv_text(measures).splitlines()))
    assert len(rows) == len(measures)
    for row, one in zip(rows, measures, strict=True):
        assert tuple(row) == HEADER
        assert (row["scan"], row["organ"]) == ("case1_day0", one.organ.name)
        assert float(row["volume_ml"]) == pytest.approx(one.volume_ml, abs=6e-4)
        assert float(row["length_mm"]) == pytest.approx(one.length_mm, abs=5e-3)
        assert int(row["first_slice"]) == one.first_slice
        assert int(row["last_slice"]) == one.last_slice
        assert row["cut_by"] == "; ".join(one.cut_by)
        assert float(row["surface_cm2"]) == pytest.approx(one.surface_cm2, abs=5e-3)
        assert float(row["mean_intensity"]) == pytest.approx(one.mean_intensity, abs=5e-3)
        assert float(row["sd_intensity"]) == pytest.approx(one.sd_intensity, abs=5e-3)
        lps = [float(row[f"centroid_{side}_mm"]) for side in ("left", "back", "head")]
        np.testing.assert_allclose(lps, one.centroid_lps_mm, atol=5e-3)
        index = [float(row[f"centroid_{axis}"]) for axis in ("slice", "row", "column")]
        np.testing.assert_allclose(index, one.centroid, atol=5e-3)
        assert int(row["voxels"]) == one.voxels


def test_what_is_not_known_is_an_empty_cell_and_zero_has_no_sign() -> None:
    absent, centred = (
        measure(of_one(mask, (1.0, 1.0, 1.0)))[0]
        for mask in (np.zeros((3, 3, 3), np.bool_), box((0, 0, 0), (1, 1, 1), (3, 3, 3)))
    )
    rows = [dict(zip(HEADER, row, strict=True)) for row in as_rows([absent, centred])]
    assert rows[0]["first_slice"] == rows[0]["mean_intensity"] == rows[0]["centroid_row"] == ""
    assert rows[1]["centroid_head_mm"] == "0.00"


def test_with_tabs_it_pastes_as_columns() -> None:
    lines = csv_text(measure(l_phantom()), delimiter="\t").splitlines()
    assert lines[0].split("\t") == list(HEADER)
    assert {len(line.split("\t")) for line in lines} == {len(HEADER)}


# --- the command ------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, cli: Callable[..., SimpleNamespace]):
    """Run ``gitract measure`` in this process."""
    import gitract.cli

    app = typer.Typer()
    app.command()(measure_command)
    app.callback()(lambda: None)
    monkeypatch.setattr(gitract.cli, "app", app)
    return lambda *arguments: cli("measure", *arguments)


@pytest.fixture
def stored(tmp_path: Path) -> SimpleNamespace:
    """A scan and its contours, as NIfTI."""
    scan, truth = abdomen_phantom()
    flat = Segmentation.of_labels(truth.labels().array, spacing=scan.spacing, affine=scan.affine)
    return SimpleNamespace(
        scan=write_scan(scan, tmp_path / "scan.nii.gz"),
        contours=write_segmentation(flat, tmp_path / "contours.nii.gz"),
        measures=measure(flat, scan),
    )


def the(measures: tuple[OrganMeasures, ...], name: str) -> OrganMeasures:
    return next(one for one in measures if one.organ.name == name)


def test_the_command_prints_a_table(run, stored) -> None:
    result = run(stored.contours)
    assert result.code == 0, result.err
    assert "Stomach" in result.out
    assert f"{the(stored.measures, 'stomach').volume_ml:.1f}" in result.out


def test_the_command_writes_csv_and_prints_json(run, stored, tmp_path) -> None:
    table = tmp_path / "out.csv"
    result = run(stored.contours, "--scan", stored.scan, "-o", table, "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["output"] == str(table)
    for one in stored.measures:
        organ = content["organs"][one.organ.name]
        assert organ["volume_ml"] == pytest.approx(one.volume_ml)
        assert organ["mean_intensity"] == pytest.approx(one.mean_intensity)
        assert sum(organ["volume_by_slice_ml"]) == pytest.approx(one.volume_ml)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["organ"] for row in rows] == [one.organ.name for one in stored.measures]
    assert list(tmp_path.glob(".*")) == []


def test_the_command_refuses_what_would_be_lost_or_does_not_fit(run, stored, tmp_path) -> None:
    before = stored.contours.read_bytes()
    for output in (stored.contours, tmp_path / "out.xlsx", tmp_path / "no" / "out.csv"):
        result = run(stored.contours, "-o", output)
        assert result.code == 2
        assert result.err.startswith("Error: ")
        assert len(result.err.strip().splitlines()) == 1
    assert stored.contours.read_bytes() == before
    other = write_scan(Scan(np.zeros((9, 9, 9), np.uint8), SPACING), tmp_path / "other.nii.gz")
    result = run(stored.contours, "--scan", other, "-o", tmp_path / "out.csv")
    assert result.code == 2
    assert "another grid" in result.err
    assert not (tmp_path / "out.csv").exists()


def test_the_command_does_not_replace_its_input(run, tmp_path) -> None:
    scan, truth = abdomen_phantom()
    contours = write_segmentation(replace(truth, name=scan.name), tmp_path / "contours.csv")
    before = contours.read_bytes()
    result = run(contours, "-o", contours)
    assert result.code == 2
    assert "input" in result.err
    assert contours.read_bytes() == before
    np.testing.assert_array_equal(read_segmentation(contours).masks, truth.masks)
