"""The other planes: the right voxels in the right place, and clicks that move all views."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Labels
from qtpy.QtCore import QPoint, Qt

from gitract.orientation import Turn
from gitract.scan import Scan
from napari_gitract.layers import scan_to_layer
from napari_gitract.widgets._linked_views import LinkedViews
from napari_gitract.widgets._planes import Plane, directions, planes_of, voxels_in
from napari_gitract.widgets.review import VIEWS, Review
from napari_gitract.workspace import camera_of, current_slice, go_to_slice
from phantoms import stored_as

SPACING = (3.0, 1.5, 0.75)
MARKER = (4, 6, 17)  # slice, row, column: the head's half, the front, the left


def marked_scan() -> Scan:
    """A dim block with one bright voxel, on unequal spacing."""
    voxels = np.full((10, 20, 24), 100, np.uint16)
    voxels[MARKER] = 1000
    return Scan(voxels, SPACING, name="case1_day2")


TURNS = [
    Turn(swap, rows, columns)
    for swap in (False, True)
    for rows in (False, True)
    for columns in (False, True)
]


def layer_of(scan):
    from napari.layers import Image

    voxels, attributes, _ = scan_to_layer(scan)
    return Image(voxels, **attributes)


def to_data(layer):
    """Matrix from the world to array indices, from napari itself."""
    origin = np.asarray(layer.world_to_data((0.0, 0.0, 0.0)))
    columns = [np.asarray(layer.world_to_data(np.eye(3)[i])) - origin for i in range(3)]
    return np.stack([*columns, origin], axis=1)


def named(layer, name) -> Plane:
    return next(plane for plane in planes_of(layer) if plane.name == name)


def picture(layer, plane, index, shape):
    """Voxels of a plane through one of the voxels of a layer."""
    point = np.asarray(layer.data_to_world(index))
    return voxels_in(layer.data, to_data(layer), plane, point, shape)[0]


# --- geometry ---------------------------------------------------------------------------


def test_planes_show_slices_as_films_hang():
    scan = marked_scan()
    layer = layer_of(scan)
    assert directions(layer) == ("feet", "back", "left")
    slice_, row, column = MARKER
    wanted = {
        "Coronal": (scan.voxels[:, row, :], ("H", "F", "R", "L")),
        "Sagittal": (scan.voxels[:, :, column], ("H", "F", "A", "P")),
        "Axial": (scan.voxels[slice_], ("A", "P", "R", "L")),
    }
    for name, (plane_voxels, edges) in wanted.items():
        plane = named(layer, name)
        assert plane.edges == edges
        np.testing.assert_array_equal(
            picture(layer, plane, MARKER, plane_voxels.shape), plane_voxels
        )


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_scan_that_is_stored_turned_looks_the_same(turn):
    straight, turned = layer_of(marked_scan()), layer_of(stored_as(marked_scan(), turn))
    where = tuple(int(i) for i in np.argwhere(turned.data == 1000)[0])
    for name in ("Coronal", "Sagittal", "Axial"):
        plane = named(turned, name)
        assert plane.edges == named(straight, name).edges
        assert plane.size == pytest.approx(named(straight, name).size)
        shape = tuple(round(mm / 0.75) for mm in plane.size)
        np.testing.assert_array_equal(
            picture(turned, plane, where, shape),
            picture(straight, named(straight, name), MARKER, shape),
        )


def test_slices_from_the_feet_up_stand_with_the_head_up_as_well():
    scan = marked_scan()
    affine = scan.affine.copy()
    affine[:3, 0] *= -1
    layer = layer_of(Scan(scan.voxels, SPACING, affine, name="up"))
    coronal = named(layer, "Coronal")
    assert coronal.edges == ("H", "F", "R", "L")
    np.testing.assert_array_equal(
        picture(layer, coronal, MARKER, (10, 24)), scan.voxels[::-1, MARKER[1], :]
    )


def test_coronal_stacks_have_axial_and_sagittal_planes():
    scan = marked_scan()
    to_back, to_feet, to_left = (0.0, 3.0, 0.0), (0.0, 0.0, -1.5), (0.75, 0.0, 0.0)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([to_back, to_feet, to_left], axis=1)
    layer = layer_of(Scan(scan.voxels, SPACING, affine, name="coronal"))
    assert named(layer, "Axial").edges == ("A", "P", "R", "L")
    assert named(layer, "Sagittal").edges == ("H", "F", "A", "P")
    np.testing.assert_array_equal(
        picture(layer, named(layer, "Sagittal"), MARKER, (20, 10)), scan.voxels[:, :, MARKER[2]].T
    )


def test_pixels_beside_a_smaller_stack_are_empty():
    layer, part = layer_of(marked_scan()), Labels(np.ones((2, 3, 4), np.uint8), scale=SPACING)
    coronal = named(layer, "Coronal")
    point = np.zeros(3)
    _, inside = voxels_in(part.data, to_data(part), coronal, point, (10, 24))
    assert inside[:2, :4].all()
    assert np.count_nonzero(inside) == 8


@settings(max_examples=40)
@given(
    index=st.tuples(st.integers(0, 9), st.integers(0, 19), st.integers(0, 23)),
    translate=st.tuples(*[st.floats(-50, 50)] * 3),
    scale=st.tuples(*[st.sampled_from([-2.0, 0.5, 1.0, 3.0])] * 3),
)
def test_a_voxel_is_drawn_where_its_plane_says(index, translate, scale):
    data = np.zeros((10, 20, 24), np.uint8)
    data[index] = 1
    layer = Labels(data, scale=scale, translate=translate)
    point = np.asarray(layer.data_to_world(index))
    for plane in planes_of(layer):
        shape = (data.shape[plane.down], data.shape[plane.along])
        pixels = voxels_in(data, to_data(layer), plane, point, shape)[0]
        assert np.count_nonzero(pixels) == 1
        drawn = np.argwhere(pixels)[0]
        share = np.array(plane.share_of(point)) * shape
        np.testing.assert_array_equal(np.floor(share + 1e-6), drawn)
        np.testing.assert_allclose(plane.point_at(*plane.share_of(point), point), point, atol=1e-6)


# --- the widget -------------------------------------------------------------------------


def add_scan(viewer, scan):
    voxels, attributes, _ = scan_to_layer(scan)
    return viewer.add_image(voxels, **{**attributes, "contrast_limits": (0, 1000)})


@pytest.fixture(params=[Turn(), Turn(flip_rows=True, flip_columns=True)], ids=["as is", "reversed"])
def image(request, viewer):
    return add_scan(viewer, stored_as(marked_scan(), request.param))


@pytest.fixture
def views(viewer, image, qtbot):
    views = LinkedViews(viewer)
    qtbot.addWidget(views)
    views.resize(300, 500)
    views.show_layer(image)
    views.grab()  # which lays it out
    return views


def marker_of(layer):
    return np.argwhere(np.asarray(layer.data) == 1000)[0]


def color_at(pane, world):
    """The colour of a pane at a point of the world, beside the lines."""
    shot = pane.grab().toImage()
    ratio = shot.width() / pane.width()
    place = pane.place_of(world) * ratio
    return shot.pixelColor(round(place.x()), round(place.y()))


def panes(views):
    return {pane.plane.name: pane for pane in views.panes}


def test_a_marker_is_where_the_layers_transform_puts_it(viewer, image, views):
    marker = np.asarray(image.data_to_world(marker_of(image)))
    aside = 0.3 * np.array([3.0, 1.5, 0.75])  # lines go through the middle
    views.go_to(marker)
    assert set(panes(views)) == {"Coronal", "Sagittal"}
    for pane in views.panes:
        assert color_at(pane, marker + aside).lightness() > 200
        assert color_at(pane, marker + 3 * aside + 1).lightness() < 60
    go_to_slice(viewer, image, 0)
    views.go_to(np.asarray(image.data_to_world(marker_of(image) + 1)))
    for pane in views.panes:
        assert color_at(pane, marker + aside).lightness() < 60


def test_a_millimetre_is_as_long_down_as_along(views):
    for pane in views.panes:
        height, width = pane.plane.size
        place = pane.place()
        assert place.height() / place.width() == pytest.approx(height / width, rel=0.02)


def click(qtbot, pane, world):
    place = pane.place_of(world)
    qtbot.mouseClick(pane, Qt.MouseButton.LeftButton, pos=QPoint(int(place.x()), int(place.y())))


def test_a_click_moves_the_slider_and_the_other_plane(viewer, image, views, qtbot):
    go_to_slice(viewer, image, 0)
    index = marker_of(image)
    world = np.asarray(image.data_to_world(index))
    click(qtbot, panes(views)["Coronal"], world)
    assert current_slice(viewer, image) == index[0]
    assert views.point[[0, 2]] == pytest.approx(world[[0, 2]])  # the coronal plane stays
    assert views.point[1] != pytest.approx(world[1])
    click(qtbot, panes(views)["Sagittal"], world)
    assert views.point == pytest.approx(world)


def test_the_slider_moves_the_line(viewer, image, views):
    for index in (2, 7):
        go_to_slice(viewer, image, index)
        world = image.data_to_world((index, 0, 0))
        assert views.point[0] == pytest.approx(world[0])


def test_a_press_in_the_canvas_moves_the_planes(viewer, image, views):
    class Press:
        type = "mouse_press"
        position = (6.0, 9.0, 3.75)

    for callback in viewer.mouse_drag_callbacks:
        callback(viewer, Press())
    assert views.point[1:] == pytest.approx((9.0, 3.75))


def test_the_wheel_steps_by_voxels_and_stays_inside(viewer, image, views):
    coronal = panes(views)["Coronal"].plane
    before = views.point[1]
    views.step(coronal, 1)
    assert views.point[1] == pytest.approx(before + 1.5, abs=0.76)
    views.step(coronal, 1000)
    assert views.point[1] == pytest.approx(image.extent.world[1][1], abs=0.76)


def test_labels_are_drawn_in_their_colours_and_hidden_layers_not(viewer, image, views, qtbot):
    labels = viewer.add_labels(np.ones(image.data.shape, np.uint8), scale=SPACING, opacity=1.0)
    labels.affine = image.affine
    red = {1: "red", None: "transparent"}
    from napari.utils.colormaps import DirectLabelColormap

    labels.colormap = DirectLabelColormap(color_dict=red)
    away = views.point + (6.0, 4.0, 3.0)
    pane = views.panes[0]
    assert color_at(pane, away).getRgb()[:3] == (255, 0, 0)
    labels.contour = 1
    assert color_at(pane, away).red() < 60
    labels.contour = 0
    labels.visible = False
    assert color_at(pane, away).red() < 60


def test_strokes_are_seen(viewer, image, views, qtbot):
    labels = viewer.add_labels(np.zeros(image.data.shape, np.uint8), scale=SPACING, opacity=1.0)
    labels.affine = image.affine
    views.go_to(np.asarray(image.data_to_world((5, 10, 12))))
    drawn = []
    for pane in views.panes:
        pane.update = lambda pane=pane: drawn.append(pane)
    labels.data_setitem((np.array([5]), np.array([10]), np.array([14])), 1)
    qtbot.waitUntil(lambda: set(drawn) == set(views.panes))


def test_when_the_viewer_shows_another_plane_the_axial_one_is_here(viewer, image, views):
    viewer.dims.order = (1, 0, 2)
    assert set(panes(views)) == {"Axial", "Sagittal"}


def test_a_layer_that_is_moved_is_drawn_there(viewer, image, views):
    before = np.asarray(image.data_to_world(marker_of(image)))
    image.translate = (30.0, 0.0, 0.0)
    after = np.asarray(image.data_to_world(marker_of(image)))
    assert not np.allclose(before, after)
    views.go_to(after)
    aside = 0.3 * np.array([3.0, 1.5, 0.75])
    for pane in views.panes:
        assert color_at(pane, after + aside).lightness() > 200


# --- in the window ----------------------------------------------------------------------


def test_the_button_docks_the_planes_and_takes_them_away(viewer, qtbot):
    scan = marked_scan()
    add_scan(viewer, scan)
    labels = viewer.add_labels(np.ones(scan.shape, np.uint8), scale=SPACING)
    review = Review(viewer)
    viewer.window.add_dock_widget(review, name="Review (napari-gitract)")
    callbacks = len(viewer.mouse_drag_callbacks)
    review.views_button.click()
    assert VIEWS in viewer.window.dock_widgets
    assert len(panes(review.views)) == 2
    review.views_button.click()
    assert VIEWS not in viewer.window.dock_widgets
    assert review.views is None
    qtbot.waitUntil(lambda: len(viewer.mouse_drag_callbacks) == callbacks)
    review.views_button.click()
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: review.views.panes[0].plane is None)


def test_the_planes_stand_below_the_canvas_and_leave_the_docks_beside(viewer, qtbot):
    scan = marked_scan()
    viewer.add_labels(np.ones(scan.shape, np.uint8), scale=SPACING)
    review = Review(viewer)
    dock = viewer.window.add_dock_widget(review, name="Review (napari-gitract)")
    window = dock.parent()
    window.resize(1366, 768)
    window.show()
    qtbot.waitUntil(lambda: dock.height() > 600)
    size, corners = dock.size(), [window.corner(one) for one in Qt.Corner]
    review.show_views()
    below = review.views.parent()
    qtbot.waitUntil(lambda: 200 < below.height() < 300)
    assert below.geometry().right() < dock.geometry().left()
    assert dock.size() == size
    assert all(pane.width() > 250 for pane in review.views.panes)
    review.close_views()
    assert [window.corner(one) for one in Qt.Corner] == corners
    qtbot.waitUntil(lambda: dock.size() == size)


def test_closing_the_dock_or_the_widget_ends_the_planes(viewer, qtbot):
    scan = marked_scan()
    viewer.add_labels(np.ones(scan.shape, np.uint8), scale=SPACING)
    review = Review(viewer)
    viewer.window.add_dock_widget(review, name="Review (napari-gitract)")
    review.show_views()
    viewer.window.remove_dock_widget(review.views)
    assert review.views is None
    assert not review.views_button.isChecked()
    review.show_views()
    viewer.window.remove_dock_widget(review)
    assert VIEWS not in viewer.window.dock_widgets


@pytest.mark.parametrize("zoomed", [False, True])
def test_a_fitted_slice_stays_fitted_and_a_zoomed_one_zoomed(make_napari_viewer, qtbot, zoomed):
    viewer = make_napari_viewer(show=True)
    viewer.add_labels(np.ones(marked_scan().shape, np.uint8), scale=SPACING)
    review = Review(viewer)
    viewer.window.add_dock_widget(review, name="Review (napari-gitract)")
    canvas, camera = viewer.window._qt_viewer.canvas.native, camera_of(viewer)
    viewer.window.resize(1366, 768)
    qtbot.waitUntil(lambda: canvas.height() > 600)
    viewer.reset_view()
    camera.zoom *= 2 if zoomed else 1
    zoom, height = camera.zoom, canvas.height()
    review.show_views()
    qtbot.waitUntil(lambda: canvas.height() < 0.8 * height)
    qtbot.waitUntil(lambda: zoomed or camera.zoom < 0.8 * zoom)
    review.close_views()
    qtbot.waitUntil(lambda: canvas.height() > 0.95 * height)
    qtbot.waitUntil(lambda: camera.zoom == pytest.approx(zoom, rel=0.02))
