"""What all parts of a header share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Part(BaseModel):
    """Base of every part: unknown keys are errors, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
