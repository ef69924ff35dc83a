"""Organs of a model renamed, recoloured and left out, without touching their ids."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gitract.corrections import Corrections, CorrectionStore
from gitract.errors import InputError
from gitract.model_organs import change_organs
from gitract.model_store import ModelStore
from gitract.organs import ORGANS
from gitract.predict import Segmenter
from gitract.scan import Scan, Segmentation


@pytest.fixture
def scan(phantom: tuple[Scan, Segmentation]) -> Scan:
    return phantom[0]


@pytest.fixture
def tiny(trained: SimpleNamespace, store: ModelStore) -> str:
    store.import_model(trained.result.model)
    return store.activate("tiny").id


def test_a_renamed_and_recoloured_organ_is_drawn_as_before_under_its_id(
    tiny: str, store: ModelStore, scan: Scan
) -> None:
    before = Segmenter(tiny, device="cpu", store=store).segment(scan)
    info = change_organs(
        names={"stomach": "stomach_gtv"}, colors={"stomach": "#00FF00"}, name="Ours", store=store
    )
    assert (info.id, info.parent) == ("ours", tiny)
    assert store.active() == info
    assert [organ.id for organ in info.organs] == [organ.id for organ in ORGANS]
    assert (info.organs[2].name, info.organs[2].color) == ("stomach_gtv", "#00FF00")
    after = Segmenter(device="cpu", store=store).segment(scan)
    np.testing.assert_array_equal(after.masks, before.masks)
    assert info.dice.get("stomach_gtv") == store.find(tiny).dice.get("stomach")
    assert "Nothing was trained" in info.card
    assert store.restore().id == tiny  # it can be undone


def test_an_organ_that_is_left_out_is_drawn_no_more_and_the_others_as_before(
    tiny: str, store: ModelStore, scan: Scan
) -> None:
    before = Segmenter(tiny, device="cpu", store=store).segment(scan)
    info = change_organs(without=["small_bowel"], store=store)
    assert [organ.name for organ in info.organs] == ["large_bowel", "stomach"]
    after = Segmenter(device="cpu", store=store).segment(scan)
    assert np.mean(after.masks != before.masks[[0, 2]]) < 1e-4
    assert store.restore().id == tiny


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({"names": {"liver": "x"}}, "liver"),
        ({"names": {"stomach": "Big Stomach"}}, "Big Stomach"),
        ({"names": {"stomach": "small_bowel"}}, "small_bowel"),
        ({"colors": {"stomach": "green"}}, "green"),
        ({"without": [organ.name for organ in ORGANS]}, "nothing"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_changes_nothing(
    tiny: str, store: ModelStore, asked: dict[str, object], part: str
) -> None:
    with pytest.raises(InputError, match=part):
        change_organs(store=store, **asked)  # type: ignore[arg-type]
    assert store.active().id == tiny
    assert len(store.models()) == 2


def test_the_command_line_lists_and_changes_organs(cli, trained: SimpleNamespace) -> None:  # type: ignore[no-untyped-def]
    assert cli("models", "import", trained.result.model).code == 0
    listed = json.loads(cli("models", "organs", "tiny", "--json").out)
    assert [organ["name"] for organ in listed["organs"]] == [organ.name for organ in ORGANS]
    changed = cli(
        "models", "organs", "tiny", "--rename", "stomach=stomach_gtv", "--remove", "small_bowel",
        "--color", "large_bowel=#123456", "--name", "Ours", "--json",
    )  # fmt: skip
    assert json.loads(changed.out) == {
        "model": "ours",
        "organs": [
            {"id": 1, "name": "large_bowel", "color": "#123456"},
            {"id": 3, "name": "stomach_gtv", "color": ORGANS[2].color},
        ],
    }
    assert ModelStore().active().id == "ours"
    refused = cli("models", "organs", "tiny", "--rename", "stomach")
    assert refused.code == 2
    assert "organ=value" in refused.err


def test_the_command_line_lists_and_deletes_corrections(  # type: ignore[no-untyped-def]
    cli, phantom: tuple[Scan, Segmentation]
) -> None:
    assert json.loads(cli("corrections", "list", "--json").out) == []
    corrections = Corrections(*phantom, (2, 5))
    CorrectionStore().add(corrections)
    (entry,) = json.loads(cli("corrections", "list", "--json").out)
    assert entry["key"] == corrections.key
    assert entry["slices"] == [2, 5]
    assert phantom[0].name not in cli("corrections", "list").out
    assert cli("corrections", "forget").code == 2
    assert cli("corrections", "forget", "nobody").code == 2
    assert cli("corrections", "forget", entry["key"]).code == 0
    CorrectionStore().add(corrections)
    assert "1 scan." in cli("corrections", "forget", "--all").out
    assert CorrectionStore().entries() == []
