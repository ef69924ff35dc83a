"""What an error for the user must look like."""

from typing import Any

import pytest

__all__ = ["assert_one_sentence"]


def assert_one_sentence(error: pytest.ExceptionInfo[Any], *parts: str) -> None:
    """One sentence on one line, which names each of `parts`."""
    text = str(error.value)
    assert text.endswith(".")
    assert ". " not in text
    assert "\n" not in text
    for part in parts:
        assert part in text
