"""What judges texts for all endpoints of a gateway: the policy's recognizers, scorer and classifier, made once."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import polars as pl

from images.gateway.errors import ApiError
from images.gateway.guards import injection
from images.gateway.guards.personal_data import StreamMasker
from images.gateway.guards.verdict import GuardUnavailable
from llmops_assets.privacy.pii import detector
from llmops_assets.specs.policy import Policy
from llmops_assets.toxicity.classifier import Transformers
from llmops_assets.toxicity.scorer import ToxicityError, ToxicityScorer
from llmops_assets.toxicity.scorers import scorer

log = logging.getLogger("gateway.guards")

T = TypeVar("T")

_THREADS = 2
_MOST_WAITING = 64
# Below it a thread costs more than the judging.
INLINE_CHARACTERS = 2_000


class Judges:
    """Made when a guard first needs them, and safe to use from several threads. GuardUnavailable where one cannot be.

    Dear judgements are made in threads of their own, and only so many wait for one: a model that judges slowly must
    not hold up the requests of other endpoints.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="guards")
        self._waiting = 0
        self._lock = threading.RLock()

    async def run(self, judge: Callable[[], T], *, is_dear: bool) -> T:
        """What `judge` returns: called here where it is cheap, in a thread where it is not. ApiError 503 when busy."""
        if not is_dear:
            return judge()
        if self._waiting >= _MOST_WAITING:
            raise ApiError(503, "the guards are busy: try again in a moment", code="guards_busy", retry_after=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, judge)
        finally:
            self._waiting -= 1

    def prepare(self) -> None:
        """Make what all guards by rules need, beside the requests: the first of them would else wait for it."""
        self._pool.submit(self._prepare)

    def _prepare(self) -> None:
        try:
            masker = self.masker(names=False)
            masker.may_find(["-"])
            masker.unfinished("-")
            injection.may_be_one(["-"])
        except Exception:  # whoever is judged hears of it
            log.exception("the guards could not be made beforehand")

    def close(self) -> None:
        """Let what is being judged end, and take nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _detector(self):
        with self._lock:
            rules = self.policy.datasets.pii
            return detector(rules.model_copy(update={"mode": "mask"}), "traffic")

    def masker(self, *, names: bool) -> StreamMasker:
        """What finds personal data, with persons' names outside forms or without."""
        return self._with_names if names else self._without_names

    @cached_property
    def _without_names(self) -> StreamMasker:
        return StreamMasker(self._detector)

    @cached_property
    def _with_names(self) -> StreamMasker:
        return StreamMasker(self._detector, names=True)

    @property
    def harm_is_dear(self) -> bool:
        return self.policy.datasets.toxicity.scorer == "transformers"

    @cached_property
    def _scorer(self) -> ToxicityScorer:
        with self._lock:
            try:
                return scorer(self.policy.datasets.toxicity)
            except (ToxicityError, ImportError) as error:
                raise GuardUnavailable(f"datasets.toxicity of the policy: {error}") from error

    def harm(self, texts: list[str]) -> list[list[str]]:
        """Of each text the groups that it offends."""
        return self._scorer.groups(pl.Series("text", texts, dtype=pl.String)).to_list()

    @cached_property
    def _classifier(self) -> tuple[Transformers, float]:
        rules = self.policy.serving.injection_classifier
        if rules is None:
            raise GuardUnavailable("serving.injection_classifier of the policy names no model")
        with self._lock:
            try:
                model = Transformers(Path(rules.path).expanduser(), threshold=rules.threshold, clean=rules.clean_labels)
            except (ToxicityError, ImportError) as error:
                raise GuardUnavailable(f"serving.injection_classifier of the policy: {error}") from error
            return model, rules.threshold

    def injection(self, text: str, *, with_classifier: bool) -> injection.Attempt:
        """How surely a text is an attempt at injection: by the rules, and by the classifier where it is surer."""
        found = injection.judge(text)
        if not with_classifier or found.is_one or not text.strip():
            return found
        model, threshold = self._classifier
        probability = model.flagged([text])[0]
        if probability >= threshold:
            return injection.Attempt(max(probability, injection.THRESHOLD), ("the classifier",))
        return found if found.score >= probability else injection.Attempt(min(probability, 0.59), found.reasons)
