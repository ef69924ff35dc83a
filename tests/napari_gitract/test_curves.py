"""The curves of a training: every value, and a gap between its parts."""

from math import isnan

import pytest

from gitract.progress import Progress
from napari_gitract.widgets._curves import Curves


@pytest.fixture
def curves(qtbot):
    curves = Curves()
    qtbot.addWidget(curves)
    return curves


def check(number, start):
    """The messages of a check of four steps, as a fine-tuning sends them."""
    label = f"Check {number} of 2"
    yield Progress(start, 12, f"{label}: slices 3, 4 held out", {"dice": 0.5})
    yield Progress(start, 12, f"{label}: the new organs alone")
    for step in range(1, 5):
        values = {"loss": 1.0 / step} | ({"dice": 0.5 + 0.1 * step} if step % 2 == 0 else {})
        yield Progress(start + step, 12, f"{label}: step {step} of 4", values)


def lines(curves, name):
    """The pieces that a curve is drawn in: steps and values of each."""
    pieces = [[]]
    for step, value in zip(*curves.values[name], strict=True):
        if isnan(value):
            pieces.append([])
        else:
            pieces[-1].append((step, value))
    return [piece for piece in pieces if piece]


def test_a_training_in_one_part_is_one_line(curves):
    curves.add(check(1, 0))
    (loss,), (dice,) = lines(curves, "loss"), lines(curves, "dice")
    assert loss == [(step, 1.0 / step) for step in range(1, 5)]
    assert [step for step, _ in dice] == [0, 2, 4]


def test_the_parts_of_a_training_are_lines_of_their_own(curves):
    curves.add(check(1, 0))
    curves.add(check(2, 4))
    curves.add(
        Progress(8 + step, 12, f"Training on all 4 slices: step {step} of 4", {"loss": 0.1})
        for step in range(1, 3)
    )
    loss, dice = lines(curves, "loss"), lines(curves, "dice")
    assert [[step for step, _ in piece] for piece in loss] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert [[step for step, _ in piece] for piece in dice] == [[0, 2, 4], [4, 6, 8]]
    curves.draw()
    assert not curves.grab().isNull()


def test_a_training_begins_with_nothing_of_the_one_before(curves):
    curves.add(check(1, 0))
    curves.clear()
    assert not curves.isVisibleTo(None)
    curves.add(check(1, 0))
    assert len(lines(curves, "loss")) == len(lines(curves, "dice")) == 1
