"""Whether a probability is what it says, and what makes it so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitract.calibration import LogitCounts, calibrated


def drawn(temperature: float, seed: int = 0, count: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by a factor, and truth as they would have it without."""
    random = np.random.default_rng(seed)
    right = random.normal(0.3, 2.0, count)
    truth = random.random(count) < 1 / (1 + np.exp(-right))
    return right * temperature, truth


@settings(max_examples=15)
@given(temperature=st.floats(0.4, 4.0), seed=st.integers(0, 100))
def test_the_temperature_is_found_again(temperature: float, seed: int) -> None:
    found = LogitCounts.of(*drawn(temperature, seed)).temperature()
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_expected_error_is_as_written_out() -> None:
    logits, truth = drawn(2.5)
    chosen = logits >= np.log(0.01 / 0.99)
    p, t = 1 / (1 + np.exp(-logits[chosen])), truth[chosen]
    bins = np.minimum((p * 15).astype(int), 14)
    error = sum(
        abs(t[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean()
        for b in range(15) if (bins == b).any()
    )  # fmt: skip
    assert LogitCounts.of(logits, truth).expected_error() == pytest.approx(error, abs=2e-3)


def test_calibrated_logits_have_next_to_no_error() -> None:
    counts = LogitCounts.of(*drawn(1.0))
    assert counts.expected_error() == pytest.approx(0, abs=0.01)
    sure = LogitCounts.of(*drawn(3.0))
    assert sure.expected_error() > 0.08
    assert sure.expected_error(3.0) < 0.02


def test_counts_add_up() -> None:
    one, other = drawn(2.0, 1, 1000), drawn(2.0, 2, 3000)
    both = [np.concatenate(pair) for pair in zip(one, other, strict=True)]
    added = LogitCounts.of(*one) + LogitCounts.of(*other)
    np.testing.assert_array_equal(added.counts, LogitCounts.of(*both).counts)


def test_folds_are_judged_by_the_temperature_of_the_others() -> None:
    folds = [(f"case{seed}", LogitCounts.of(*drawn(2.0, seed))) for seed in range(3)]
    found = calibrated(folds)
    assert found is not None
    assert found.temperature == pytest.approx(2.0, rel=0.05)
    for who, _ in folds:
        assert found.after[who] < 0.02 < found.before[who]
    odd = calibrated([*folds[:1], ("odd", LogitCounts.of(*drawn(0.5)))])
    assert odd is not None
    assert odd.after["odd"] > odd.before["odd"]  # it gets what suits the other


def test_without_two_folds_to_compare_nothing_is_claimed() -> None:
    assert LogitCounts.nothing().temperature() == 1.0
    assert LogitCounts.nothing().expected_error() is None
    one = LogitCounts.of(*drawn(1.0))
    assert calibrated([("a", one), ("b", LogitCounts.nothing())]) is None
