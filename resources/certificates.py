"""Until when certificates are valid that a server shows to whoever calls it."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509


def ends_at(file: Path) -> datetime:
    """When the first of the certificates of a PEM file ends, in UTC: clients refuse a chain as soon as one has.

    Raises ValueError naming the file where it holds none, and OSError where it cannot be read.
    """
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} holds no certificate in PEM: {error}") from error
    return min(one.not_valid_after_utc for one in chain)


def left_seconds(file: Path) -> float:
    """For how long the certificates of a PEM file are valid from now on, in seconds; negative where one has ended."""
    return (ends_at(file) - datetime.now(UTC)).total_seconds()
