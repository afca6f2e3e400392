"""What an endpoint's requests and answers are held to before they are passed on."""

from functools import cached_property
from typing import Literal

from pydantic import Field

from llmops_assets.specs.base import Bool, Float, Int, Part

Judged = Literal["refuse", "flag"]


class PersonalDataGuard(Part):
    """Personal data, by the recognizers and placeholders of the policy."""

    action: Literal["mask", "refuse", "flag"] = Field(
        default="mask", description="mask: a placeholder takes its place; flag: it is noted and passed on."
    )
    names: Bool = Field(
        default=False, description="Look for persons' names outside forms too: the costliest part by far."
    )


class InjectionGuard(Part):
    """Attempts to make the model disregard its instructions or tell them."""

    action: Judged = "refuse"
    classifier: Bool = Field(
        default=False, description="Ask the model of the policy's serving.injection_classifier too, beside the rules."
    )


class HarmGuard(Part):
    """Harmful content, by the toxicity scorer of the policy."""

    action: Judged = "refuse"


class LengthGuard(Part):
    """Longest text, of all messages together or of one answer. An answer that is longer is cut there."""

    action: Judged = "refuse"
    max_characters: Int | None = Field(default=None, ge=1)
    max_tokens: Int | None = Field(
        default=None, ge=1, description="By what no tokenizer packs more of: eight UTF-8 bytes a token."
    )


class LanguageGuard(Part):
    """Letters of the languages that an endpoint speaks."""

    action: Judged = "refuse"
    allowed: list[Literal["ko", "en"]] = Field(default_factory=lambda: ["ko", "en"], min_length=1)
    min_share: Float = Field(default=0.5, gt=0, le=1, description="Share of the letters that must be of these.")
    min_letters: Int = Field(default=20, ge=1, description="Texts with fewer letters are not judged.")


class InputGuards(Part):
    """What is looked at before a model is asked."""

    personal_data: PersonalDataGuard | None = None
    injection: InjectionGuard | None = None
    harm: HarmGuard | None = None
    length: LengthGuard | None = None
    language: LanguageGuard | None = None


class OutputGuards(Part):
    """What is looked at before a client gets the answer."""

    personal_data: PersonalDataGuard | None = None
    harm: HarmGuard | None = None
    length: LengthGuard | None = None
    language: LanguageGuard | None = None

    @cached_property
    def holds(self) -> bool:
        """Whether sentences are judged before they are passed on."""
        return any(guard is not None and guard.action == "refuse" for guard in (self.harm, self.language))

    @cached_property
    def flags(self) -> bool:
        """Whether any guard only notes what it finds, once a text is whole."""
        judging = (self.personal_data, self.harm, self.language)
        return any(guard is not None and guard.action == "flag" for guard in judging)


class Guards(Part):
    """Guards of an endpoint, none by default. The platform's own probes pass them."""

    input: InputGuards = Field(default_factory=InputGuards)
    output: OutputGuards = Field(default_factory=OutputGuards)
