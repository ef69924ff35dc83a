"""The organs of a layer: added, renamed, removed and back, in a viewer; ids stay what they are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog

from gitract.baseline import slice_digests
from gitract.errors import InputError
from gitract.home import default_home
from gitract.io import read_segmentation, write_segmentation
from gitract.organs import IGNORE, KNOWN_ORGANS, ORGANS, Organ
from gitract.scan import Segmentation
from napari_gitract._reader import read_layers
from napari_gitract.layers import (
    METADATA_KEY,
    origin_of,
    scan_to_layer,
    segmentation_from_layer,
    segmentation_to_layer,
)
from napari_gitract.organ_table import (
    add_organ,
    adopt,
    move_organ,
    recolour_organ,
    remove_organ,
    rename_organ,
    restore_organ,
)
from napari_gitract.widgets._organs import NAME, SWATCH, VOLUME, OrganTable
from napari_gitract.workspace import Workspace

SHAPE = (6, 20, 24)


def stomach_layer(scan=None) -> Labels:
    """The stomach on all slices, as predicted."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 2:8, 2:10] = 3
    drawn = Segmentation.of_labels(
        labels,
        spacing=(3.0, 1.5, 1.25) if scan is None else scan.spacing,
        name="case1_day2",
        provenance={"model": "m", "baseline": slice_digests(labels)},
    )
    return Layer.create(*segmentation_to_layer(drawn))


def opened(viewer, scan) -> Labels:
    """The labels, over their scan."""
    voxels, attributes, _ = scan_to_layer(scan)
    viewer.add_image(voxels, **attributes)
    return viewer.add_layer(stomach_layer(scan))


@pytest.fixture
def model() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def labels(model, scan) -> Labels:
    return opened(model, scan)


def names(layer: Labels) -> list[str]:
    return [organ.name for organ in origin_of(layer.metadata).organs]


def shown_as(layer: Labels, value: int) -> str:
    """What the status bar calls a value."""
    features = layer.features
    return str(features["name"][features["index"] == value].item())


# --- adding -----------------------------------------------------------------------------


def test_a_new_organ_is_painted_with_at_once(labels):
    organ = add_organ(labels, "Lymph node 2")
    assert organ.name == "lymph_node_2"
    assert labels.selected_label == organ.id
    labels.paint((2, 12, 12), labels.selected_label)
    painted = segmentation_from_layer(labels)
    assert painted.organs == (*ORGANS, organ)
    assert painted.masks[-1].any()
    assert shown_as(labels, organ.id) == "Lymph node 2"
    assert tuple(labels.get_color(organ.id)[:3]) == QColor(organ.color).getRgbF()[:3]


@pytest.mark.parametrize("name", ["tumour", "Tumor", "GTV", " gtv "])
def test_a_tumour_is_the_gtv_of_everybody(labels, name):
    assert add_organ(labels, name) in KNOWN_ORGANS
    assert names(labels)[-1] == "gtv"


def test_known_organs_keep_their_id_and_colour(labels):
    for known in KNOWN_ORGANS[3:]:
        assert add_organ(labels, known.title) == known
    assert add_organ(labels, "PTV 50").id > KNOWN_ORGANS[-1].id


def test_numbered_targets_are_told_apart(labels):
    organs = [add_organ(labels, name) for name in ("GTV", "GTV 2", "GTV 3")]
    assert [organ.name for organ in organs] == ["gtv", "gtv_2", "gtv_3"]
    assert len({organ.id for organ in organs}) == 3


def test_an_organ_of_the_users_own_table_has_the_id_that_it_gives(labels):
    default_home().mkdir(parents=True, exist_ok=True)
    (default_home() / "organ-names.yaml").write_text("lesion: [spot]\n")
    first = add_organ(labels, "something else")
    assert add_organ(labels, "Spot").name == "lesion"
    fresh = stomach_layer()
    assert first.id != add_organ(fresh, "lesion").id


def test_an_id_that_another_organ_of_the_layer_has_is_not_given_twice(labels):
    origin = origin_of(labels.metadata)
    bone = Organ(4, "bone", "#ffffff")
    labels.metadata = {METADATA_KEY: replace(origin, organs=(*ORGANS, bone))}
    duodenum = add_organ(labels, "duodenum")
    assert duodenum.color == KNOWN_ORGANS[3].color
    assert duodenum.id not in {organ.id for organ in KNOWN_ORGANS}


def test_what_somebody_painted_with_a_free_value_is_not_made_an_organ(labels):
    labels.data[0, 0, 0] = 18
    assert add_organ(labels, "ptv").id == 19


@pytest.mark.parametrize("name", ["stomach", "Stomach", "gaster", "ignore", "", "??"])
def test_names_that_cannot_be_are_refused(labels, name):
    before = origin_of(labels.metadata)
    with pytest.raises(InputError):
        add_organ(labels, name)
    assert origin_of(labels.metadata) is before


def test_a_colour_can_be_given(labels):
    organ = add_organ(labels, "ptv", "#ABCDEF")
    assert organ.color == "#abcdef"
    with pytest.raises(InputError, match="blue"):
        add_organ(labels, "itv", "blue")


def test_when_no_id_is_left_it_says_so(labels):
    labels.data.ravel()[:255] = np.arange(255)
    with pytest.raises(InputError, match="no id left"):
        add_organ(labels, "ptv")


# --- changing ---------------------------------------------------------------------------


@settings(max_examples=40)
@given(data=st.data())
def test_no_operation_changes_what_is_painted_or_an_origin(data):
    layer = stomach_layer()
    add_organ(layer, "tumour")
    add_organ(layer, "ptv")
    layer.data[3] = np.arange(20, dtype=np.uint8)[:, None] % 4
    layer.data[4, :5, :5], layer.data[5, :4] = 17, 18
    before, voxels = origin_of(layer.metadata), layer.data.copy()
    kept = (before.organs, before.provenance.copy())
    for _ in range(data.draw(st.integers(1, 5))):
        organs = origin_of(layer.metadata).organs
        organ = data.draw(st.sampled_from(organs))
        match data.draw(st.sampled_from(["rename", "recolour", "move"])):
            case "rename":
                name = data.draw(st.sampled_from(["gaster", "Liver", "x 1", "stomach"]))
                if name.lower().replace(" ", "_") not in names(layer):
                    rename_organ(layer, organ.id, name)
            case "recolour":
                color = data.draw(st.integers(0, 0xFFFFFF).map("#{:06x}".format))
                recolour_organ(layer, organ.id, color)
                assert QColor(color).getRgb()[:3] == tuple(
                    round(255 * float(part)) for part in layer.get_color(organ.id)[:3]
                )
            case "move":
                place = data.draw(st.integers(-2, 7))
                move_organ(layer, organ.id, place)
                wanted = min(max(place, 0), len(organs) - 1)
                assert origin_of(layer.metadata).organs[wanted].id == organ.id
    after = origin_of(layer.metadata)
    np.testing.assert_array_equal(layer.data, voxels)
    assert sorted(organ.id for organ in after.organs) == [1, 2, 3, 17, 18]
    assert (before.organs, before.provenance) == kept
    assert [shown_as(layer, organ.id) for organ in after.organs] == [o.title for o in after.organs]


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_ids_on_disk_stay_whatever_the_table_says(labels, tmp_path, suffix):
    tumour = add_organ(labels, "tumour")
    labels.paint((3, 12, 15), tumour.id)
    rename_organ(labels, tumour.id, "Lesion in S2")
    rename_organ(labels, 3, "gaster")
    recolour_organ(labels, 3, "#102030")
    move_organ(labels, tumour.id, 0)
    move_organ(labels, 2, 9)
    table = origin_of(labels.metadata).organs
    path = write_segmentation(segmentation_from_layer(labels), tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(read_segmentation(path).labels().array, labels.data)
    [again] = (Layer.create(*layer) for layer in read_layers(path))
    np.testing.assert_array_equal(again.data, labels.data)
    assert origin_of(again.metadata).organs == table
    assert names(again) == ["lesion_in_s2", "large_bowel", "gaster", "small_bowel"]
    assert segmentation_from_layer(again).provenance["edited"] == [3]


def test_a_new_name_is_no_other_organs(labels):
    with pytest.raises(InputError, match="already"):
        rename_organ(labels, 3, "Large bowel")
    with pytest.raises(InputError, match="learnt"):
        rename_organ(labels, 3, "Ignore")
    with pytest.raises(InputError, match="no organ with the id 9"):
        rename_organ(labels, 9, "liver")
    assert rename_organ(labels, 3, "STOMACH") == ORGANS[2]


def test_what_was_not_reviewed_is_known_by_the_new_name(labels):
    unreviewed = {"all": ["stomach"], "4": ["small_bowel", "stomach"]}
    origin = origin_of(labels.metadata)
    provenance = {**origin.provenance, "unreviewed": unreviewed}
    labels.metadata = {METADATA_KEY: replace(origin, provenance=provenance)}
    rename_organ(labels, 3, "gaster")
    known = origin_of(labels.metadata).provenance["unreviewed"]
    assert known == {"all": ["gaster"], "4": ["small_bowel", "gaster"]}
    assert unreviewed["all"] == ["stomach"]


# --- removing ---------------------------------------------------------------------------


def test_a_removed_organ_is_gone_from_table_and_voxels(labels):
    labels.selected_label = 3
    assert remove_organ(labels, 3) == ORGANS[2]
    assert not labels.data.any()
    assert segmentation_from_layer(labels).organs == ORGANS[:2]
    assert labels.selected_label == 2


def test_the_last_organ_cannot_be_removed(labels):
    remove_organ(labels, 1)
    remove_organ(labels, 2)
    with pytest.raises(InputError, match="only organ"):
        remove_organ(labels, 3)
    assert labels.data.any()


def test_undo_brings_the_organ_back_where_it_stood(labels):
    drawn = labels.data.copy()
    labels.paint((1, 15, 15), 1)
    remove_organ(labels, 3)
    remove_organ(labels, 1)
    labels.undo()
    assert names(labels) == ["large_bowel", "small_bowel"]
    labels.undo()
    assert origin_of(labels.metadata).organs == ORGANS
    labels.undo()
    np.testing.assert_array_equal(labels.data, drawn)


def test_after_redo_the_organ_is_on_the_list_and_can_be_removed_again(labels):
    remove_organ(labels, 3)
    labels.undo()
    labels.redo()
    assert not labels.data.any()
    assert origin_of(labels.metadata).organs == ORGANS
    remove_organ(labels, 3)
    assert names(labels) == ["large_bowel", "small_bowel"]
    labels.undo()
    assert segmentation_from_layer(labels).masks[-1].any()


def test_restoring_undoes_the_removal_alone(labels):
    drawn = labels.data.copy()
    remove_organ(labels, 3)
    assert restore_organ(labels) == ORGANS[2]
    np.testing.assert_array_equal(labels.data, drawn)
    assert origin_of(labels.metadata).organs == ORGANS
    assert not origin_of(labels.metadata).removed
    with pytest.raises(InputError, match="No organ"):
        restore_organ(labels)


def test_what_was_painted_since_is_not_undone_by_restoring(labels):
    remove_organ(labels, 3)
    labels.paint((1, 15, 15), 1)
    painted = labels.data.copy()
    with pytest.raises(InputError, match="painted on since"):
        restore_organ(labels)
    np.testing.assert_array_equal(labels.data, painted)
    labels.undo()
    restore_organ(labels)
    assert np.count_nonzero(labels.data == 3) == 6 * 6 * 8


def test_an_organ_without_voxels_is_restored_whatever_came_since(labels):
    remove_organ(labels, 2)
    labels.paint((1, 15, 15), 1)
    painted = labels.data.copy()
    assert restore_organ(labels) == ORGANS[1]
    assert origin_of(labels.metadata).organs == ORGANS
    np.testing.assert_array_equal(labels.data, painted)


def test_its_id_is_never_anothers(labels):
    first = add_organ(labels, "ptv")
    labels.paint((1, 15, 15), first.id)
    remove_organ(labels, first.id)
    second = add_organ(labels, "itv")
    assert second.id != first.id
    assert add_organ(labels, "PTV") == first
    labels.undo()
    painted = segmentation_from_layer(labels)
    assert [organ.name for organ in painted.organs[3:]] == ["itv", "ptv"]
    assert painted.volumes_ml["ptv"] > 0 == painted.volumes_ml["itv"]


def test_an_organ_that_comes_back_to_find_its_name_taken_gets_another(labels):
    remove_organ(labels, 3)
    rename_organ(labels, 2, "stomach")
    labels.undo()
    assert names(labels) == ["large_bowel", "stomach", "stomach_2"]


def test_voxels_that_come_back_on_any_way_can_be_saved(labels, tmp_path):
    tumour = add_organ(labels, "ptv")
    labels.paint((1, 15, 15), tumour.id)
    labels.undo()
    remove_organ(labels, tumour.id)  # while nothing of it was there
    labels.redo()
    segmentation = segmentation_from_layer(labels)
    assert segmentation.organs == (*ORGANS, tumour)
    again = read_segmentation(write_segmentation(segmentation, tmp_path / "out.tif"))
    np.testing.assert_array_equal(again.labels().array, labels.data)


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["paint", "remove", "undo", "redo", "restore", "add"]),
            st.sampled_from([1, 2, 3, 17]),
        ),
        max_size=14,
    )
)
def test_no_value_is_ever_without_its_organ(steps):
    layer = stomach_layer()
    for step, identity in steps:
        try:
            match step:
                case "paint" if identity in {o.id for o in origin_of(layer.metadata).organs}:
                    layer.paint((identity % 6, 3 * (identity % 6), 10), identity)
                case "remove":
                    remove_organ(layer, identity)
                case "restore":
                    restore_organ(layer)
                case "add":
                    add_organ(layer, KNOWN_ORGANS[identity - 1].name)
                case "undo":
                    layer.undo()
                case "redo":
                    layer.redo()
        except InputError:
            continue
        finally:
            painted = segmentation_from_layer(layer)
            np.testing.assert_array_equal(painted.labels().array, layer.data)
            assert len({organ.name for organ in painted.organs}) == len(painted.organs)


# --- layers that are not ours -----------------------------------------------------------


def test_a_layer_that_the_user_made_takes_organs_too(model):
    layer = model.add_labels(np.zeros((4, 8, 8), np.uint8), scale=(3, 2, 2))
    tumour = add_organ(layer, "tumour")
    layer.paint((1, 4, 4), tumour.id)
    painted = segmentation_from_layer(layer)
    assert painted.organs == (*ORGANS, tumour)
    assert painted.spacing == (3, 2, 2)


def test_over_a_scan_it_lies_where_the_scan_does(model, labels, scan):
    layer = model.add_labels(np.zeros(SHAPE, np.uint8), scale=scan.spacing)
    assert adopt(layer, model.layers).name == scan.name
    assert add_organ(layer, "tumour").id == 17
    assert segmentation_from_layer(layer).name == scan.name


def test_layers_without_a_place_are_refused_and_left_as_they_are(model):
    layer = model.add_labels(np.zeros((4, 8, 8), np.uint8))
    flat = model.add_labels(np.zeros((8, 8), np.uint8))
    for one, why in ((layer, "voxel size"), (flat, "not one stack")):
        with pytest.raises(InputError, match=why):
            add_organ(one, "tumour")
        assert METADATA_KEY not in one.metadata


# --- the widget, in a window --------------------------------------------------------------


@pytest.fixture
def layer(viewer, scan) -> Labels:
    return opened(viewer, scan)


@pytest.fixture
def table(viewer, layer, qtbot) -> OrganTable:
    widget = OrganTable(viewer)
    qtbot.addWidget(widget)
    widget.resize(300, 400)
    widget.show()
    widget.show_layer(layer)
    return widget


def texts(table: OrganTable, column: int) -> list[str]:
    return [table.rows.item(row, column).text() for row in range(table.rows.rowCount())]


def test_the_table_lists_names_and_volumes(table, layer, qtbot):
    assert texts(table, NAME) == ["Large bowel", "Small bowel", "Stomach"]
    assert texts(table, VOLUME) == ["–", "–", f"{6 * 6 * 8 * 3 * 1.5 * 1.25 / 1000:.1f} mL"]
    layer.brush_size = 6
    layer.paint((2, 14, 14), 1)
    qtbot.waitUntil(lambda: texts(table, VOLUME)[0] != "–")


def test_clicking_a_row_paints_with_it(table, layer, viewer, qtbot):
    viewer.layers.selection.active = viewer.layers[0]
    place = table.rows.visualItemRect(table.rows.item(1, NAME)).center()
    qtbot.mouseClick(table.rows.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert layer.selected_label == 2
    assert viewer.layers.selection.active is layer
    layer.selected_label = 3
    assert table.chosen == ORGANS[2]
    layer.selected_label = IGNORE.id
    assert table.chosen is None
    assert not table.remove_button.isEnabled()


def test_organs_are_added_by_name_and_by_suggestion(table, layer, qtbot):
    qtbot.keyClicks(table.new_name.lineEdit(), "Tumour")
    qtbot.keyClick(table.new_name.lineEdit(), Qt.Key.Key_Return)
    assert texts(table, NAME)[-1] == "GTV"
    assert table.new_name.currentText() == ""
    offered = [table.new_name.itemText(index) for index in range(table.new_name.count())]
    assert "Duodenum" in offered
    assert not {"GTV", "Stomach"} & {*offered}
    table.new_name.setCurrentText("Duodenum")
    table.add_button.click()
    assert names(layer)[-1] == "duodenum"
    assert layer.selected_label == 4
    assert table.chosen.name == "duodenum"


def test_a_name_is_edited_in_place(table, layer, shown, qtbot):
    with qtbot.waitSignal(table.changed):
        table.rows.item(2, NAME).setText("Gaster")
    assert names(layer)[2] == "gaster"
    table.rows.item(2, NAME).setText("Large bowel")
    assert "already" in shown[0]
    assert texts(table, NAME)[2] == "Gaster"
    assert not table.rows.item(2, VOLUME).flags() & Qt.ItemFlag.ItemIsEditable


def test_a_click_on_a_colour_asks_for_another(table, layer, monkeypatch, qtbot):
    chosen = [QColor("#123456"), QColor()]
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: chosen.pop(0))
    place = table.rows.visualItemRect(table.rows.item(1, SWATCH)).center()
    for _ in range(2):  # the second time nothing is chosen
        qtbot.mouseClick(table.rows.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert origin_of(layer.metadata).organs[1].color == "#123456"
    image = table.rows.item(1, SWATCH).icon().pixmap(14, 14).toImage()
    assert image.pixelColor(7, 7).name() == "#123456"


def test_rows_move_with_the_choice(table, layer):
    layer.selected_label = 3
    table.up_button.click()
    table.up_button.click()
    assert names(layer) == ["stomach", "large_bowel", "small_bowel"]
    assert not table.up_button.isEnabled()
    assert table.chosen.name == "stomach"
    table.down_button.click()
    assert texts(table, NAME) == ["Large bowel", "Stomach", "Small bowel"]


def test_removing_is_undone_by_its_button(table, layer):
    layer.selected_label = 3
    assert not table.undo_button.isVisible()
    table.remove_button.click()
    assert texts(table, NAME) == ["Large bowel", "Small bowel"]
    table.undo_button.click()
    assert texts(table, NAME) == ["Large bowel", "Small bowel", "Stomach"]
    assert layer.data.any()
    assert not table.undo_button.isVisible()


def test_removing_is_undone_by_napari_too(table, layer):
    layer.selected_label = 3
    table.remove_button.click()
    layer.undo()
    assert texts(table, NAME) == ["Large bowel", "Small bowel", "Stomach"]
    assert table.hint.text() == ""


def test_an_organ_comes_back_to_the_table_on_any_way(table, layer, qtbot):
    tumour = add_organ(layer, "ptv")
    layer.paint((1, 15, 15), tumour.id)
    layer.undo()
    remove_organ(layer, tumour.id)
    layer.redo()
    qtbot.waitUntil(lambda: texts(table, NAME)[-1] == "PTV")
    assert names(layer)[-1] == "ptv"


def test_the_table_is_as_high_as_its_rows_up_to_eight(table, layer):
    def hidden() -> bool:
        return table.rows.verticalScrollBar().maximum() > 0

    for count, known in enumerate(KNOWN_ORGANS[3:8], start=4):
        add_organ(layer, known.name)
        assert table.rows.rowCount() == count
        assert not hidden()
    heights = []
    for known in KNOWN_ORGANS[8:11]:
        add_organ(layer, known.name)
        heights.append(table.rows.height())
    assert heights[0] == heights[1] == heights[2]


def test_another_layer_shows_its_own_organs(table, layer, viewer, qtbot):
    add_organ(layer, "tumour")
    other = viewer.add_labels(np.zeros((4, 8, 8), np.uint8), scale=(3, 2, 2))
    table.show_layer(other)
    assert texts(table, NAME) == ["Large bowel", "Small bowel", "Stomach"]
    add_organ(layer, "liver")
    assert table.organs == ORGANS
    table.show_layer(None)
    assert table.organs == ()
    assert not table.add_button.isEnabled()
    table.add()


def test_a_refusal_is_one_sentence(table, viewer, shown):
    unplaced = viewer.add_labels(np.zeros((4, 8, 8), np.uint8))
    table.show_layer(unplaced)
    table.new_name.setCurrentText("tumour")
    table.add_button.click()
    assert len(shown) == 1
    assert "voxel size" in shown[0]
    assert table.new_name.currentText() == "tumour"


def test_a_layer_that_is_being_filled_cannot_be_changed(table, layer):
    layer.editable = False
    assert not table.add_button.isEnabled()
    assert not table.rows.isEnabled()
    layer.editable = True
    assert table.add_button.isEnabled()


def test_two_tables_of_two_viewers_do_not_mix(table, layer, make_napari_viewer, qtbot):
    other_viewer = make_napari_viewer()
    other_labels = other_viewer.add_layer(stomach_layer())
    other = OrganTable(other_viewer)
    qtbot.addWidget(other)
    other.show_layer(other_labels)
    add_organ(layer, "tumour")
    assert len(table.organs) == 4
    assert other.organs == ORGANS


def test_others_are_told_that_the_layer_changed(table, layer, viewer):
    seen = []
    Workspace.of(viewer).labels_touched.connect(seen.append)
    for change in (
        lambda: add_organ(layer, "tumour"),
        lambda: rename_organ(layer, 17, "lesion"),
        lambda: move_organ(layer, 17, 0),
        lambda: remove_organ(layer, 17),
        lambda: restore_organ(layer),
    ):
        seen.clear()
        change()
        assert layer in seen
