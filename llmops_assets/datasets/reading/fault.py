"""Why one row cannot be read, and the words for bytes that are no text."""


class RowFault(Exception):
    """Why one row cannot be read: `field` is the path inside the row."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def encoding_reason(data: bytes) -> str:
    """Why bytes are no UTF-8 text, and how to convert them where they look like CP949."""
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return "not UTF-8 text; it looks like CP949: convert it with `iconv -f cp949 -t utf-8`"
