"""Pictures that are painted by hand follow napari's theme while they are open."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qtpy.QtGui import QColor

from gitract.progress import Progress
from napari_gitract.widgets._curves import Curves
from napari_gitract.widgets._days_plot import DayCurve, DayPlot
from napari_gitract.widgets._painting import Shades
from napari_gitract.widgets._strip import SliceStrip
from napari_gitract.widgets._volume_plot import Curve, VolumePlot

YELLOW = "#e8b13a"


def strip():
    widget = SliceStrip()
    widget.show_states(["edited", *["untouched"] * 9])
    return widget, widget.columns


def volume_plot():
    widget = VolumePlot()
    widget.show_curves([Curve("Large bowel", YELLOW, np.array([0.0, 3.0, 2.0, 0.0]))])
    return widget, widget


def day_plot():
    widget = DayPlot()
    widget.show_curves(["day0", "day1"], [DayCurve("Large bowel", YELLOW, (3.0, 2.0))])
    return widget, widget


def training_curves():
    widget = Curves()
    widget.add(Progress(step, 4, "Check 1 of 1", {"loss": 1.0 / (step + 1)}) for step in range(4))
    widget.draw()
    return widget, widget


PICTURES = (strip, volume_plot, day_plot, training_curves)


def contrast(one, other):
    """As WCAG 2.2 defines it."""

    def luminance(color):
        parts = np.array(color.getRgbF()[:3])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted(luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def colors_in(picture):
    """Each colour of a picture, as Qt's numbers, and how many pixels have it."""
    shot = picture.grab().toImage()
    return np.unique(
        [shot.pixel(x, y) for x in range(shot.width()) for y in range(shot.height())],
        return_counts=True,
    )


@pytest.mark.parametrize("make", PICTURES, ids=lambda make: make.__name__)
def test_the_ground_is_light_in_a_light_theme_and_dark_in_a_dark_one(make, viewer, qtbot):
    widget, picture = make()
    viewer.window.add_dock_widget(widget, name="picture")
    for theme, is_right in (
        ("light", lambda ground: ground.lightness() > 200),
        ("dark", lambda ground: ground.lightness() < 60),
        ("light", lambda ground: ground.lightness() > 200),
    ):
        viewer.theme = theme

        def ground():
            colors, counts = colors_in(picture)
            return QColor(int(colors[counts.argmax()]))

        qtbot.waitUntil(lambda: is_right(ground()))  # noqa: B023 - within the loop


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("make", PICTURES[1:], ids=lambda make: make.__name__)
def test_what_is_drawn_can_be_told_from_the_ground(make, theme, viewer):
    widget, picture = make()
    viewer.window.add_dock_widget(widget, name="picture")
    viewer.theme = theme
    colors, counts = colors_in(picture)
    ground = QColor(int(colors[counts.argmax()]))
    hue = QColor(YELLOW).hsvHue()
    drawn = [color for color in map(QColor, map(int, colors)) if color.hsvSaturation() > 120]
    yellow = [color for color in drawn if abs(color.hsvHue() - hue) < 15]
    assert max(contrast(color, ground) for color in yellow) >= 3.0


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_legend_has_the_colours_of_the_strip(theme, viewer):
    widget, columns = strip()
    viewer.window.add_dock_widget(widget, name="strip")
    viewer.theme = theme
    widget.grab()  # which has Qt apply the theme to what was not on the screen yet
    shot = columns.grab().toImage()
    drawn = shot.pixelColor(2, shot.height() - 2)
    assert f"color:{drawn.name()}" in widget.legend.text()


@given(
    color=st.integers(0, 0xFFFFFF),
    ground=st.sampled_from(["#15161a", "#f3f1f0"]),
    least=st.sampled_from([3.0, 4.5]),
)
def test_a_colour_is_changed_only_where_it_could_not_be_seen(color, ground, least):
    color, ground = QColor(f"#{color:06x}"), QColor(ground)
    ink = QColor("white" if ground.lightness() < 128 else "black")
    shades = Shades(ground, ink, ink, ink, ink)
    shown = shades.visible(color.name(), least)
    assert contrast(shown, ground) >= least
    assert (shown == color) == (contrast(color, ground) >= least)
