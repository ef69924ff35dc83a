"""What pictures that are painted by hand share: the theme's colours, and small type.

napari's themes are style sheets, from which Qt fills the palette of each widget. So whatever is
painted with these colours follows the theme, since Qt repaints all when the theme changes.
"""

from typing import NamedTuple

from qtpy.QtGui import QColor, QFont
from qtpy.QtWidgets import QWidget

__all__ = ["FADED", "Shades", "small"]

FADED = 0.35
"""The opacity of what is out of date."""
_STEPS = 20


class Shades(NamedTuple):
    """The colours of a picture in the theme of its window.

    Parameters
    ----------
    ground
        Behind the picture: darker than a dark dock, lighter than a light one.
    ink, text, behind, grid
        What is drawn, from the strongest to the faintest: where the viewer is, numbers, the
        column of the slice that is shown, lines.
    """

    ground: QColor
    ink: QColor
    text: QColor
    behind: QColor
    grid: QColor

    @classmethod
    def of(cls, widget: QWidget) -> "Shades":
        """Those for a picture in a widget."""
        palette = widget.palette()
        dock, ink = palette.window().color(), palette.windowText().color()
        dark = dock.lightness() < ink.lightness()
        ground = _mixed(dock, QColor("black" if dark else "white"), 0.4)
        return cls(ground, ink, *(_mixed(ground, ink, share) for share in (0.7, 0.26, 0.17)))

    def visible(self, color: str, contrast: float = 3.0) -> QColor:
        """A colour, nearer to the ink by as much as it takes to tell it from the ground.

        Parameters
        ----------
        color
            For instance, of an organ.
        contrast
            The least ratio of luminances, as WCAG 2.2 defines it: 3 for what is drawn (1.4.11),
            4.5 for text (1.4.3).
        """
        steps = (_mixed(QColor(color), self.ink, step / _STEPS) for step in range(_STEPS))
        return next((one for one in steps if _contrast(one, self.ground) >= contrast), self.ink)


def small(font: QFont) -> QFont:
    """The same type in the size of numbers beside a plot."""
    smaller = QFont(font)
    smaller.setPixelSize(11)
    return smaller


def _mixed(one: QColor, other: QColor, share: float) -> QColor:
    """A colour with so large a share of another one."""
    parts = zip(one.getRgbF()[:3], other.getRgbF()[:3], strict=True)
    return QColor.fromRgbF(*((1 - share) * a + share * b for a, b in parts))


def _contrast(one: QColor, other: QColor) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: QColor) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in color.getRgbF()[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
