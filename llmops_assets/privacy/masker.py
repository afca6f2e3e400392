"""Masks single texts by the rules of a policy: what logs requests, keeps reviews and looks into traffic shares it."""

from collections import Counter
from dataclasses import dataclass

from llmops_assets.privacy import masking
from llmops_assets.privacy.masking import Span
from llmops_assets.privacy.pii import ROUNDS, Detector, detector
from llmops_assets.specs.policy import Policy


@dataclass(frozen=True)
class Masked:
    """A text without its personal data, and how many spans of each type it had."""

    text: str
    found: Counter[str]


class Masker:
    """Masks texts one by one, by the patterns of a detector; called with a text it gives the masked one.

    `names`: persons' names that stand without a label are looked for too, which costs a hundred times as much. Safe to
    use from several threads.
    """

    def __init__(self, detector: Detector, *, names: bool = False) -> None:
        self.detector = detector
        self.patterns = detector.patterns
        self.placeholders = detector.placeholders
        self.names = detector.names if names else None

    @classmethod
    def of(cls, policy: Policy) -> "Masker":
        """What masks whatever is kept of requests: the platform's patterns, the policy's own, its placeholders.

        A placeholder stands there whatever the policy does with datasets: traffic is shown to people.
        """
        return cls(detector(policy.datasets.pii.model_copy(update={"mode": "mask", "names": False}), "traffic"))

    def __call__(self, text: str) -> str:
        return self._masked(text).text

    def spans(self, text: str) -> list[Span]:
        """Personal data in a text, in order and without overlap."""
        found = masking.find(text, self.patterns)
        if self.names is None or not text:
            return found
        return masking.resolve([*found, *self.names([text])[0]])

    def types(self, text: str) -> list[str]:
        """The types of personal data in a text, one for each span."""
        return [span.type for span in self.spans(text)]

    def mask(self, text: str) -> Masked:
        """A text without its personal data, and what was found."""
        return self._masked(text)

    def _masked(self, text: str) -> Masked:
        counts: Counter[str] = Counter()
        # What stood behind a masked number may now stand behind its label.
        for _ in range(ROUNDS):
            spans = self.spans(text)
            if not spans:
                break
            counts.update(span.type for span in spans)
            text = masking.replace(text, spans, self.placeholders)
        return Masked(text, counts)
