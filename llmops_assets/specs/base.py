"""What every spec is made of: strict field types, rules across fields, and faults that are all reported at once."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError
from pydantic import model_validator as _model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


@dataclass(frozen=True)
class SpecFault:
    """One thing wrong in what a user wrote: where, what, and what to do about it."""

    field: str
    message: str
    hint: str = ""
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        field = self.field or "(the whole file)"
        text = f"{place}: {field}: {self.message}" if place else f"{field}: {self.message}"
        return f"{text}. {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class SpecError(ValueError):
    """A spec, a policy or a model's config that cannot be used; `faults` has every reason."""

    def __init__(self, faults: Iterable[SpecFault]):
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def dotted(path: Iterable[str | int]) -> str:
    """The path of a field as users read it: ``evaluation.suites[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


_EXPONENT_WITHOUT_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def _to_float(value: object) -> object:
    # YAML 1.1 reads 2e-4 (no point, or no sign in the exponent) as a string; every user means the number.
    if isinstance(value, str) and _EXPONENT_WITHOUT_POINT.fullmatch(value.strip()):
        value = float(value)
    # -0.0 is the same setting as 0.0, but would be another text in the canonical form.
    return 0.0 if isinstance(value, float) and value == 0.0 else value


Float = Annotated[float, BeforeValidator(_to_float), Field(strict=True, allow_inf_nan=False)]
Int = Annotated[int, Field(strict=True)]
Bool = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
REF_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
VersionedRef = Annotated[str, Field(pattern=REF_PATTERN, max_length=200)]

_PATTERN_HINTS = {
    NAME_PATTERN: "Use Latin letters, digits, '.', '_' and '-', starting with a letter or digit",
    REF_PATTERN: "Write NAME@VERSION, for example support-desk@v1",
    r"\S": "Write something here",
}


class Part(BaseModel):
    """A block of a spec: no unknown keys, immutable."""

    # Built when it is first used: a command or a worker uses few of the kinds that it imports.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class View:
    """What can be read of a spec that may be faulty elsewhere, so that rules across fields still run."""

    def __init__(self, data: Mapping[str, Any]):
        self._data = data

    def get(self, path: str, *types: type) -> Any:
        """The value at a dotted path, or None when it is absent, faulty or not of one of `types`."""
        value: Any = self._data
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        value = _to_float(value) if float in types else value
        if not types or (isinstance(value, types) and (bool in types or not isinstance(value, bool))):
            return value
        return None

    def number(self, path: str) -> float | None:
        return self.get(path, int, float)


Rule = tuple[str, str, str]  # field path, message, hint


class Spec(Part):
    """A file that a user writes.

    A subclass gives `complete`, which writes out the defaults that follow from other fields, and `rules`, which
    yields what is wrong across fields. Faults of fields and of rules come together in one ValidationError.
    """

    kind: ClassVar[str]

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        """Fill in, in place, the defaults that follow from other fields."""

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        """Yield (field path, message, hint) for each rule across fields that `view` breaks."""
        yield from ()

    def notes(self) -> list[str]:
        """What of this valid spec is set aside, field by field: it is said wherever the spec is taken."""
        return []

    @classmethod
    def readable(cls, data: Mapping[str, Any], error: ValidationError) -> View:
        """What of `data` can be read although validating it raised `error`."""
        plain = _plain(data)
        cls.complete(plain)
        return View(_without(plain, [item["loc"] for item in error.errors(include_url=False)]))

    @_model_validator(mode="wrap")
    @classmethod
    def _all_faults(cls, data: Any, handler: ModelWrapValidatorHandler):
        if isinstance(data, cls) or not isinstance(data, Mapping):
            return handler(data)
        data = _plain(data)
        cls.complete(data)
        errors: list[InitErrorDetails] = []
        value = None
        try:
            value = handler(data)
            view = View(value.model_dump())
        except ValidationError as error:
            errors = [_detail(item) for item in error.errors(include_url=False)]
            view = View(_without(data, [item["loc"] for item in errors]))
        faulty = {item["loc"] for item in errors}
        for path, message, hint in cls.rules(view):
            loc = tuple(path.split("."))
            if loc not in faulty:
                custom = PydanticCustomError("rule", "{message}", {"message": message, "hint": hint})
                errors.append(InitErrorDetails(type=custom, loc=loc, input=view.get(path)))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)
        return value


def _plain(value: Any) -> Any:
    """A deep copy in plain dicts and lists, without what a nested model would add by default."""
    if isinstance(value, BaseModel):
        return _plain({name: getattr(value, name) for name in value.model_fields_set})
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _without(data: Any, locs: list[tuple]) -> Any:
    """A copy of `data` without the values at `locs`."""
    if not isinstance(data, dict):
        return data
    gone = {loc[0] for loc in locs if len(loc) == 1}
    return {
        key: _without(item, [loc[1:] for loc in locs if len(loc) > 1 and loc[0] == key])
        for key, item in data.items()
        if key not in gone
    }


def _detail(error: Any) -> InitErrorDetails:
    context = {key: value for key, value in error.get("ctx", {}).items() if isinstance(value, (str, int, float))}
    custom = PydanticCustomError(error["type"], "{message}", {**context, "message": error["msg"]})
    return InitErrorDetails(type=custom, loc=error["loc"], input=error["input"])


def faults_of(error: ValidationError, model: type[BaseModel], file: str | None = None) -> list[SpecFault]:
    """The faults in a ValidationError of `model`, each with a hint, in the words of a user."""
    faults = []
    items = error.errors(include_url=False)
    for item in items:
        message, hint = words_of(item, model, is_yaml=True)
        faults.append(SpecFault(field=dotted(item["loc"]), message=message, hint=hint, file=file))
    return faults


def words_of(item: Any, model: type[BaseModel] | None = None, *, is_yaml: bool = False) -> tuple[str, str]:
    """What is wrong with one input and what to do, of an entry of pydantic's `errors()` for `model`."""
    kind, context, value, loc = item["type"], item.get("ctx", {}), item["input"], item["loc"]
    message = context.get("message", item["msg"])
    if kind == "invalid_key":
        return "a key should be text", "Put it in quotes, or remove it"
    if kind == "extra_forbidden":
        names = _siblings(model, loc)
        close = get_close_matches(str(loc[-1]), names, n=1, cutoff=0.6)
        known = f"Known here: {', '.join(names)}" if names else "Remove it"
        return "unknown key", f"Did you mean '{close[0]}'?" if close else known
    if kind == "missing":
        return "required, but missing", f"Add '{loc[-1]}'"
    if kind in ("literal_error", "enum"):
        expected = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        folded = {name.lower(): name for name in expected}
        close = get_close_matches(str(value).lower(), folded, n=1, cutoff=0.6)
        hint = f"Did you mean '{folded[close[0]]}'?" if close else ""
        return f"{_short(value)} is not one of {', '.join(expected)}", hint
    if kind == "string_type" and is_yaml and isinstance(value, (int, float, date)):
        return f"should be text, but YAML reads it as {type(value).__name__}", "Put it in quotes"
    if kind == "string_type":
        return f"should be text, not {_short(value)}", ""
    if kind == "string_pattern_mismatch":
        return f"{_short(value)} is not allowed here", _PATTERN_HINTS.get(context.get("pattern", ""), "")
    if kind in ("int_type", "float_type", "int_from_float", "bool_type"):
        wanted = {"i": "a whole number", "f": "a number", "b": "true or false"}[kind[0]]
        bare = isinstance(value, str) and re.fullmatch(r"[+-]?[\d._]+", value)
        return f"should be {wanted}, not {_short(value)}", "Write it without quotes" if bare else ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        if is_yaml:
            return f"should be a block of 'key: value' lines, not {_short(value)}", ""
        return f"should be an object, not {_short(value)}", ""
    message = message.removeprefix("Value error, ").removeprefix("Input ").removesuffix(".")
    given = kind.startswith(("greater", "less", "too_", "string_too", "finite"))
    return (f"{message}, but is {_short(value)}" if given else message), context.get("hint", "")


def _short(value: object) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "infinite"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _siblings(model: type[BaseModel] | None, loc: tuple) -> list[str]:
    """The names of the fields beside the one at `loc`."""
    current = model
    for part in loc[:-1]:
        if current is None or part not in current.model_fields:
            return []
        current = _model_in(current.model_fields[part].annotation)
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
