"""Test-time augmentation: the scan is looked at in several ways, and the answers averaged."""

from pydantic import Field

from gitract.model_config import Preparation
from gitract.strict import StrictModel

__all__ = ["SEVERAL_VIEWS", "View", "Views"]


class View(StrictModel):
    """One way to look at a scan.

    Parameters
    ----------
    scale
        How much larger the body is shown than the model is used to.
    mirrored
        Whether left and right are exchanged.
    """

    scale: float = Field(default=1.0, gt=0.2, lt=5)
    mirrored: bool = False

    def prepared_as(self, preparation: Preparation) -> Preparation:
        """How a scan is prepared for this view."""
        return preparation.model_copy(update={"pixel_mm": preparation.pixel_mm / self.scale})


class Views(StrictModel):
    """The ways to look at a scan: each scale, and each of them mirrored too if asked for.

    Parameters
    ----------
    scales
        As of `View`.
    mirror
        Only for models that were trained on mirrored bodies: in others the stomach changes
        sides.
    """

    scales: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    mirror: bool = False

    @property
    def all(self) -> list[View]:
        """Each view."""
        sides = (False, True) if self.mirror else (False,)
        return [View(scale=scale, mirrored=side) for scale in self.scales for side in sides]


SEVERAL_VIEWS = Views(scales=(1.0, 0.9, 1.1))
"""What ``--tta`` stands for."""
