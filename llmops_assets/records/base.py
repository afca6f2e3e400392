"""What every record is: what one asset leaves behind for the ones after it, typed, kept as JSON by partition."""

from typing import Annotated, Any, ClassVar, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, SerializationInfo, ValidationInfo

PATHS = "paths"
"""Key of the context of a validation or serialization under which the roots of the installation are handed in."""


class Paths(Protocol):
    """Writes a path by the root that it lies under, and finds it again on this machine."""

    def stored(self, path: str) -> str: ...

    def resolved(self, stored: str) -> str: ...


def _resolved(value: str, info: ValidationInfo) -> str:
    paths: Paths | None = (info.context or {}).get(PATHS)
    return paths.resolved(value) if paths is not None and value else value


def _stored(value: Any, info: SerializationInfo) -> Any:
    paths: Paths | None = (info.context or {}).get(PATHS)
    return paths.stored(value) if paths is not None and value else value


StoredPath = Annotated[str, AfterValidator(_resolved), PlainSerializer(_stored)]
"""A path: absolute in memory, and written by the root that it lies under, so that no file names a machine's path.

Without `PATHS` in the context (a copy in memory, the output of a command) it stays as it is.
"""


class Record(BaseModel):
    """A record is immutable; `asset` is the name of the asset whose partitions it describes."""

    # A diverged training has figures that are no numbers; its record must be readable all the same.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants", defer_build=True)
    asset: ClassVar[str]
