"""The patterns of recognizers that a policy describes."""

from llmops_assets.privacy.checksums import brn_checksum_holds, digits_of, iban_holds, luhn_holds, rrn_checksum_holds
from llmops_assets.privacy.pattern import Pattern
from llmops_assets.specs.recognizers import Recognizer, translated


def own_pattern(recognizer: Recognizer) -> Pattern:
    """The pattern of a recognizer that a policy describes."""
    checks = {
        "luhn": luhn_holds,
        "rrn": lambda text: len(digits_of(text)) == 13 and rrn_checksum_holds(text),
        "brn": lambda text: len(digits_of(text)) == 10 and brn_checksum_holds(text),
        "iban": iban_holds,
    }
    return Pattern(
        name=recognizer.name,
        type=recognizer.type,
        body=translated(recognizer.regex, ignore_case=recognizer.ignore_case),
        score=recognizer.score,
        valid=checks[recognizer.checksum] if recognizer.checksum else None,
        numeric=False,
        context=tuple(recognizer.context),
    )
