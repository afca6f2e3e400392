"""The patterns and names of the platform as presidio recognizers: for users of presidio, and as a second opinion."""

from collections.abc import Iterable

import regex
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer import Pattern as PresidioPattern
from presidio_analyzer import PatternRecognizer as PresidioPatternRecognizer
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.nlp_engine.no_op_nlp_engine import NoOpNlpEngine

from llmops_assets.privacy import masking, names
from llmops_assets.privacy.pattern import Pattern, fold
from llmops_assets.privacy.patterns import PATTERNS

LANGUAGE = "ko"
"""Presidio wants one; the patterns are those of Korean and English texts alike."""


class FoldedPatternRecognizer(PresidioPatternRecognizer):
    """One pattern of `privacy`, run by presidio on the folded text; positions are those of the text as given."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        super().__init__(
            supported_entity=pattern.type,
            name=pattern.name,
            supported_language=LANGUAGE,
            patterns=[PresidioPattern(pattern.name, pattern.with_lookbehind, pattern.score)],
            # Presidio's default ignores case, which would make words of names.
            global_regex_flags=regex.V0,
        )

    def invalidate_result(self, pattern_text: str) -> bool | None:
        return self._pattern.valid is not None and not self._pattern.valid(pattern_text)

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None, regex_flags: int | None = None
    ) -> list[RecognizerResult]:
        folded, positions = fold(text)
        results = super().analyze(folded, entities, nlp_artifacts, regex_flags)
        results = [r for r in results if masking.stands_near(self._pattern, folded, r.start, r.end)]
        if positions is not None:
            for result in results:
                result.start, result.end = positions[result.start], positions[result.end - 1] + 1
        return results


class NameRecognizer(EntityRecognizer):
    """Names of persons, found by `names.find_names`."""

    def __init__(self) -> None:
        super().__init__(supported_entities=["PERSON"], name="names in Korean", supported_language=LANGUAGE)

    def load(self) -> None:
        """Nothing to load before the first text."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        return [RecognizerResult(s.type, s.start, s.end, s.score) for s in names.find_names([text])[0]]


def analyzer(
    patterns: Iterable[Pattern] = PATTERNS,
    *,
    with_names: bool = True,
    extra: Iterable[EntityRecognizer] = (),
) -> AnalyzerEngine:
    """A presidio engine with our recognizers and `extra` ones, without a language model."""
    recognizers: list[EntityRecognizer] = [FoldedPatternRecognizer(pattern) for pattern in patterns]
    if with_names:
        recognizers.append(NameRecognizer())
    registry = RecognizerRegistry([*recognizers, *extra], supported_languages=[LANGUAGE])
    engine = NoOpNlpEngine([{"lang_code": LANGUAGE, "model_name": ""}])
    engine.load()
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[LANGUAGE])


def find(engine: AnalyzerEngine, text: str) -> list[masking.Span]:
    """What presidio finds in `text`, without overlap, as `masking.find` gives it."""
    results = engine.analyze(text, language=LANGUAGE)
    return masking.resolve(masking.Span(r.start, r.end, r.entity_type, r.score) for r in results)
