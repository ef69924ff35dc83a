"""What tests need from outside the project: data and programs."""

import os
from typing import NoReturn

import pytest

__all__ = ["missing"]


def missing(reason: str) -> NoReturn:
    """Skip the test, since something is not there; on CI, where it must be, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
