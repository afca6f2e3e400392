"""Why an operation was not carried out; each error names what was wrong and what to do about it."""


class OperationError(Exception):
    """What was asked for is not done. Each door maps the kinds below to its own codes."""


class Refused(OperationError, ValueError):
    """It contradicts a rule, or what is on record: the caller has to ask for something else."""


class InUse(Refused):
    """What it would change has something running on it, which has to end first."""


class Forbidden(Refused):
    """This actor may not ask for it."""


class Withheld(OperationError):
    """It may not be done as things are: a gate, an approval or a measurement is missing."""


class Failed(OperationError):
    """It was begun and did not succeed; what is left undone stays on record."""


class Unavailable(OperationError):
    """What it needs is busy or cannot be reached: the same request may succeed later."""
