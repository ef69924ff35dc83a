"""The base of everything that is read from a file or given as settings."""

from pydantic import BaseModel, ConfigDict

__all__ = ["StrictModel"]


class StrictModel(BaseModel):
    """Refuses unknown keys, and does not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
