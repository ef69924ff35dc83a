"""The options of commands that segment: which models, how they look, how they decide."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gitract.errors import InputError

if TYPE_CHECKING:
    from gitract.decision import Decision
    from gitract.views import Views

__all__ = [
    "Holes",
    "Hysteresis",
    "Islands",
    "Mirror",
    "Models",
    "OnePart",
    "Thresholds",
    "Tidy",
    "Tta",
    "asked_decision",
    "asked_views",
]

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Model id or folder; default: the active one. Given several times, the mean of "
        "their probabilities decides.",
    ),
]
Tta = Annotated[
    bool,
    typer.Option("--tta", help="Test-time augmentation: look at three sizes, thrice as slow."),
]
Mirror = Annotated[
    bool,
    typer.Option("--mirror", help="Look mirrored too; for models trained on mirrored bodies."),
]
Tidy = Annotated[
    bool,
    typer.Option("--tidy", help="One stomach, no islands under 0.5 mL, no holes under 1 cm²."),
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        help="Probability above which an organ is there, as 0.4 or stomach=0.4; default: 0.5. "
        "Can be given several times.",
    ),
]
Hysteresis = Annotated[
    float | None,
    typer.Option(help="Lower probability, enough for what touches something above the threshold."),
]
Islands = Annotated[
    float | None, typer.Option("--smallest-ml", help="Remove parts with a smaller volume, mL.")
]
Holes = Annotated[
    float | None,
    typer.Option("--largest-hole-mm2", help="Fill holes on a slice up to this area, mm²."),
]
OnePart = Annotated[
    list[str] | None,
    typer.Option("--one-part", help="Organ of which the largest part alone is kept."),
]


def asked_views(tta: bool, mirror: bool) -> "Views":
    """How scans are looked at."""
    from gitract.views import SEVERAL_VIEWS, Views

    return (SEVERAL_VIEWS if tta else Views()).model_copy(update={"mirror": mirror})


def asked_decision(
    tidy: bool,
    thresholds: list[str] | None,
    hysteresis: float | None,
    smallest_ml: float | None,
    largest_hole_mm2: float | None,
    one_part: list[str] | None,
) -> "Decision":
    """How probabilities become contours; what is given singly goes before ``--tidy``.

    Raises
    ------
    InputError
        A number is out of its range, or a threshold is none.
    """
    from pydantic import ValidationError

    from gitract.decision import TIDY, Decision

    given: dict[str, Any] = {
        "threshold": _thresholds(thresholds),
        "hysteresis": hysteresis,
        "smallest_ml": smallest_ml,
        "largest_hole_mm2": largest_hole_mm2,
        "one_part": one_part,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return Decision.model_validate((TIDY.model_dump() if tidy else {}) | chosen)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        message = first["msg"].removeprefix("Input ")
        raise InputError(f"{option} {first['input']} {message}.") from None


def _thresholds(texts: list[str] | None) -> float | dict[str, float] | None:
    if not texts:
        return None
    by_organ: dict[str, float] = {}
    for text in texts:
        organ, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--threshold {text!r} is not like 0.4 or stomach=0.4.") from None
        if not equals and len(texts) == 1:
            return value
        if not equals:
            raise InputError(
                f"--threshold {text!r} is for all organs, and others are given as well: name the "
                "organ of each, as stomach=0.4."
            )
        by_organ[organ] = value
    return by_organ
