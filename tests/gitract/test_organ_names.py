"""Names of other people's contours find their organs; unknown ones become new organs."""

import pytest

from gitract.errors import InputError
from gitract.organ_names import OrganNames, new_organ
from gitract.organs import KNOWN_ORGANS, ORGANS, Organ
from sentences import assert_one_sentence


@pytest.fixture
def names() -> OrganNames:
    return OrganNames.load()


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("Stomach", "stomach"),
        ("STOMACH_1", "stomach"),
        ("Bowel_Small", "small_bowel"),
        ("SmallBowel", "small_bowel"),
        ("small intestine", "small_bowel"),
        ("Colon", "large_bowel"),
        ("Bowel-Large", "large_bowel"),
        ("duodenum", "duodenum"),
        ("Kidney_L", "kidney_left"),
        ("BODY", "body"),
        ("SpinalCord", "spinal_cord"),
    ],
)
def test_common_names_are_known(names: OrganNames, name: str, organ: str) -> None:
    found = names.find(name)
    assert found is not None
    assert found.name == organ


@pytest.mark.parametrize("organ", KNOWN_ORGANS, ids=lambda organ: organ.name)
def test_what_we_call_an_organ_is_known(names: OrganNames, organ: Organ) -> None:
    assert names.find(organ.name) == names.find(organ.title) == organ


def test_every_known_organ_has_an_id_and_a_term_of_its_own() -> None:
    assert [organ.id for organ in KNOWN_ORGANS] == list(range(1, len(KNOWN_ORGANS) + 1))
    assert KNOWN_ORGANS[:3] == ORGANS
    assert len({organ.code for organ in KNOWN_ORGANS}) == len(KNOWN_ORGANS)


def test_a_margin_is_another_structure(names: OrganNames) -> None:
    assert names.find("Stomach_PRV") is None


def test_unknown_names_become_new_organs_with_free_ids(names: OrganNames) -> None:
    assigned = names.assign(["PTV 50.4", "Stomach", "ptv_50_4", "CTV"])
    free = len(KNOWN_ORGANS) + 1
    assert [assigned[n].id for n in ("PTV 50.4", "CTV")] == [free, free + 1]  # type: ignore[union-attr]
    assert assigned["PTV 50.4"] is assigned["ptv_50_4"]
    assert assigned["PTV 50.4"].name == "ptv_50_4"  # type: ignore[union-attr]
    assert assigned["Stomach"] == ORGANS[2]


def test_names_in_other_scripts_are_names_too(names: OrganNames) -> None:
    organ = names.assign(["Опухоль 1"])["Опухоль 1"]
    assert organ is not None
    assert organ.name == "опухоль_1"


def test_choices_go_before_the_table(names: OrganNames) -> None:
    assigned = names.assign(["A", "Stomach", "B"], {"A": "stomach", "Stomach": "-", "B": "My one"})
    assert assigned["A"] == ORGANS[2]
    assert assigned["Stomach"] is None
    assert assigned["B"].name == "my_one"  # type: ignore[union-attr]


def test_the_users_table_adds_names_and_wins(tmp_path) -> None:
    (tmp_path / "organ-names.yaml").write_text(
        "stomach: [magen]\nptv: [PTV_5040]\nsmall_bowel: [colon]\n"
    )
    names = OrganNames.load(tmp_path)
    assert names.find("MAGEN") == ORGANS[2]
    assert names.find("gaster") == ORGANS[2]
    assert names.find("Colon") == ORGANS[1]
    ptv = names.find("ptv_5040")
    assert ptv is not None
    assert (ptv.id, ptv.name) == (len(KNOWN_ORGANS) + 1, "ptv")


@pytest.mark.parametrize("text", ["stomach: gaster", "- stomach", "stomach: [a", "stomach: [[a]]"])
def test_a_broken_table_is_one_sentence(tmp_path, text: str) -> None:
    (tmp_path / "organ-names.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        OrganNames.load(tmp_path)
    assert_one_sentence(error, "organ-names.yaml")


def test_what_cannot_be_an_organ_is_one_sentence(names: OrganNames) -> None:
    with pytest.raises(InputError) as error:
        new_organ("???", ORGANS)
    assert_one_sentence(error, "???")
    with pytest.raises(InputError) as error:
        names.assign([f"name {n} x" for n in range(300)])
    assert_one_sentence(error, "255")
    with pytest.raises(InputError) as error:
        names.assign(["Stomach"], {"Liver": "liver"})
    assert_one_sentence(error, "Liver", "Stomach")
