"""The report on labelled data: its numbers, and how it reads in a terminal."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gitract.data_report import describe
from gitract.labelled import Fault, OrganFacts, RunFacts, find_labelled
from gitract.model_config import Preparation
from gitract.organs import KNOWN_ORGANS, ORGANS, organ_named
from gitract.phantom import abdomen
from gitract.prepared import Stack, prepared_stacks

NAMES = tuple(organ.name for organ in ORGANS)


def stack(
    name: str = "case1_day0",
    *,
    slices: int = 144,
    organs: dict[str, tuple[int, float]] | None = None,
    size: tuple[int, int] = (266, 266),
    pixel_mm: float = 1.5,
    values: tuple[float, float] = (0, 16000),
    overlap: int = 0,
    cut: bool = False,
) -> Stack:
    """A stack of which only the facts count; `organs` by name are slices and mL."""
    organs = {"stomach": (30, 250.0)} if organs is None else organs
    return Stack(
        name=name,
        patient=name.split("_")[0],
        slices=torch.zeros(1),
        masks=torch.zeros(1),
        known=tuple(one in organs for one in NAMES),
        weight=1.0,
        pool="x",
        organ_slices=np.arange(1),
        facts=RunFacts(
            shape=(slices, *size),
            spacing=(3.0, pixel_mm, pixel_mm),
            low=values[0],
            high=values[1],
            organs=tuple(
                OrganFacts(name=one, slices=count, ml=ml, cut=cut)
                for one, (count, ml) in organs.items()
            ),
            outlined_slices=max((count for count, _ in organs.values()), default=0),
            organ_voxels=10_000,
            overlap_voxels=overlap,
        ),
    )


def competition(days: int, per_patient: int) -> list[Stack]:
    """As many days as the whole data set has, or a part of it."""
    random = np.random.default_rng(0)
    return [
        stack(
            f"case{1 + day // per_patient}_day{day % per_patient}",
            organs={
                "large_bowel": (51, float(random.uniform(300, 900))),
                "small_bowel": (41, float(random.uniform(200, 1400))),
                "stomach": (31, float(random.uniform(90, 700))),
            },
            size=(266, 266) if day % 3 else (310, 360),
            overlap=7,
            cut=day % 50 == 0,
        )
        for day in range(days)
    ]


def faults(count: int) -> list[Fault]:
    sentence = (
        "the file /data/uw-madison-gi-tract-image-segmentation/train/case1/case1_day0/scans/"
        "slice_0001_266_266_1.50_1.50.png is damaged or not a PNG image: copy it again from its "
        "source."
    )
    return [Fault(f"case{n}_day0", sentence) for n in range(count)]


def test_patients_scans_and_slices_are_counted_once() -> None:
    stacks = [
        stack("case1_day0", slices=20), stack("case1_day0", slices=5),  # a day with a hole
        stack("case1_day3"), stack("case2_day0", slices=1),
    ]  # fmt: skip
    report = describe(stacks, ORGANS)
    assert (report.patients, report.scans, report.slices) == (2, 3, 170)
    assert report.single_slices == 1
    assert report.few_slices == {"case2": 1}
    assert report.outlined_slices == 4 * 30


def test_organs_are_counted_where_they_are_and_unknown_where_nobody_looked() -> None:
    stacks = [
        stack("case1_day0", organs={"stomach": (30, 200.0), "large_bowel": (0, 0.0)}),
        stack("case1_day1", organs={"stomach": (20, 300.0)}, cut=True),
        stack("case2_day0", organs={"stomach": (9, 90.0)}, slices=40),
        stack("case2_day0", organs={"stomach": (4, 10.0)}, slices=20),  # after a hole
        stack("case3_day0", organs={"stomach": (1, 1.0)}, slices=1),
    ]
    organs = (*ORGANS[::2], organ_named("liver", KNOWN_ORGANS))
    bowel, stomach, liver = describe(stacks, organs).organs
    assert (stomach.patients, stomach.scans, stomach.slices) == (3, 4, 64)
    assert stomach.unknown_scans == 0
    assert (stomach.ml_mean, stomach.ml_least, stomach.ml_most) == (250, 200, 300)
    assert stomach.cut_scans == 1
    assert (bowel.scans, bowel.slices, bowel.unknown_scans) == (0, 0, 3)
    assert bowel.ml_mean is None
    assert (liver.organ, liver.unknown_scans) == ("liver", 4)
    assert describe(stacks, organs).not_outlined == ("liver",)


def test_sizes_spacings_and_values_are_listed_by_frequency() -> None:
    stacks = [
        stack("a_1", size=(310, 360), pixel_mm=1.63, values=(0, 255)),
        stack("b_1"), stack("c_1", values=(-4.5, 90)),
    ]  # fmt: skip
    report = describe(stacks, ORGANS)
    assert list(report.sizes.items()) == [("266 x 266", 2), ("310 x 360", 1)]
    assert list(report.spacings.items()) == [("3 x 1.5 x 1.5", 2), ("3 x 1.63 x 1.63", 1)]
    assert report.values == {"0 to 255": 1, "-4.5 to 16000": 2}


def test_overlap_is_a_share_of_what_is_outlined() -> None:
    assert describe([stack(overlap=30), stack("b_1")], ORGANS).overlap == pytest.approx(0.0015)
    assert describe([], ORGANS).overlap == 0


@pytest.mark.parametrize(("days", "per_patient"), [(274, 4), (5, 2)])
@pytest.mark.parametrize("fault_count", [0, 3, 40])
def test_the_report_fits_a_terminal(days: int, per_patient: int, fault_count: int) -> None:
    report = describe(competition(days, per_patient), ORGANS, faults(fault_count))
    lines = report.lines()
    assert len(lines) < 45
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert f"{days} scans" in text
    for organ in ORGANS:
        assert organ.name in text
    assert ("and 34 more" in text) == (fault_count == 40)
    assert ("No faults." in text) == (fault_count == 0)


def test_a_mixture_of_many_sources_fits_a_terminal() -> None:
    stacks = [
        stack(
            f"a-long-name-of-a-patient-{n}_1", slices=3, size=(100 + n, 200), pixel_mm=1 + n / 7,
            values=(0, 5.0e6 + n),
        )
        for n in range(60)
    ]  # fmt: skip
    lines = describe(stacks, KNOWN_ORGANS).lines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 45


def test_everything_is_in_the_json_whole() -> None:
    report = describe(competition(274, 4), ORGANS, faults(40))
    content = json.loads(json.dumps(report.as_dict()))
    assert content["scans"] == 274
    assert len(content["faults"]) == 40
    assert content["faults"][0]["scan"] == "case0_day0"
    assert content["organs"][2]["organ"] == "stomach"


def test_phantoms_are_described_as_they_were_made(phantom_data: Path, tmp_path: Path) -> None:
    found = find_labelled(phantom_data)
    stacks = prepared_stacks(found, ORGANS, Preparation(pixel_mm=6, slice_mm=9), tmp_path)
    report = describe(stacks, ORGANS)
    assert (report.patients, report.scans, report.slices) == (3, 4, 48)
    truths = [abdomen((12, 64, 72), seed=seed)[1] for seed in range(4)]
    for index, organ in enumerate(report.organs):
        volumes = [truth.volumes_ml[organ.organ] for truth in truths]
        assert organ.ml_mean == pytest.approx(np.mean(volumes))
        assert organ.slices == sum(t.masks[index].any(axis=(1, 2)).sum() for t in truths)
    assert report.sizes == {"64 x 72": 4}
