"""Who is who: patients by file names, by folders, by tables, and without their names."""

import csv
import hashlib
import re
from pathlib import Path

from gitract.errors import InputError

__all__ = ["anonymous", "patient_in_name", "read_groups", "tells_a_patient"]

_PATIENT = re.compile(r"[^0-9]*[0-9]+[^_]*")


def patient_in_name(stem: str) -> str:
    """The patient in a file name: up to the first underscore after a digit.

    ``case20_day0`` is of ``case20``, ``sub_01_ses_2`` of ``sub_01``; a name without a digit
    is a patient as a whole.
    """
    match = _PATIENT.match(stem)
    return match[0] if match else stem


_NOBODY = ("anon", "unknown", "none", "deidentified", "de-identified")


def tells_a_patient(text: str) -> bool:
    """Whether a patient's id is one; anonymisers give all of them the same."""
    return bool(text.strip("0 ")) and not text.lower().startswith(_NOBODY)


def anonymous(text: str) -> str:
    """A patient's name here, made of what identifies the patient elsewhere."""
    return f"patient-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def read_groups(path: Path) -> dict[str, str]:
    """File -> group, of a table with the columns ``file`` and ``group``.

    Raises
    ------
    InputError
        It cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as table:
            return {row["file"]: row["group"] for row in csv.DictReader(table)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error):
        raise InputError(
            f"{path} is not a readable table with the columns file and group."
        ) from None
