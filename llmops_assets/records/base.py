"""What every record is: what one asset leaves behind for the ones after it, typed, kept as JSON by partition."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A record is immutable; `asset` is the name of the asset whose partitions it describes."""

    # A diverged training has figures that are no numbers; its record must be readable all the same.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants", defer_build=True)
    asset: ClassVar[str]
