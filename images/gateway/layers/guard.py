"""Looks at what users ask and at what models answer: personal data, injection, harm, length, language."""

import logging
from collections.abc import AsyncIterator
from functools import partial

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway
from images.gateway.guards.inputs import judge_request
from images.gateway.guards.judges import Judges
from images.gateway.guards.outputs import AnswerGuard
from images.gateway.guards.retrieved import Passage, judge_passages
from images.gateway.guards.verdict import GuardUnavailable, Verdict
from images.gateway.layers.base import Layer
from llmops_assets.specs.guards import InputGuards, OutputGuards

log = logging.getLogger("gateway.guards")

PASSAGES = "judge passages"
"""Under what this layer notes how to judge the passages that a layer below finds for a call; missing where nothing is
judged."""

# Ways to have an answer's text in another form than the one that is looked at.
_OTHER_FORMS = frozenset(
    ("logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids")
)


class Guard(Layer):
    """On the way down it looks at everything in `call.body` that a model reads, may mask it there or refuse (400), and
    notes its verdicts in `call.verdicts`; on the way up it looks at the answer, also across the borders of events.

    The platform's own probes pass: they compare what a model says with what it said when it was evaluated.
    """

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.judges = Judges(gateway.policy)

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def open(self) -> None:
        self.judges.prepare()

    async def close(self) -> None:
        self.judges.close()

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        guards = call.endpoint.guards
        looks_at_input, looks_at_output = asks(guards.input), asks(guards.output)
        if call.is_probe or not (looks_at_input or looks_at_output):
            return await proceed(call)
        try:
            if looks_at_input:
                await self._request(call, guards.input)
                call.notes[PASSAGES] = partial(self._passages, guards.input)
            if not looks_at_output:
                return await proceed(call)
            for name in _OTHER_FORMS & call.body.keys():
                if call.body[name] is not None and call.body[name] is not False:
                    raise ApiError(
                        400, f"`{name}` cannot be had: this endpoint looks at the text of its answers", param=name
                    )
            answer = await proceed(call)
            if answer.status != 200:
                return answer
            guard = AnswerGuard(guards.output, self.judges)
            if answer.events is not None:
                answer.events = self._events(call, guard, answer.events)
                return answer
            answer.body = await guard.whole(answer.body, answer.content)
            self._note(call, guard.verdicts)
            return answer
        except (GuardUnavailable, ImportError) as error:
            raise self._unavailable(call, error) from error

    async def _request(self, call: Call, guards: InputGuards) -> None:
        for name in ("prompt", "input"):
            if _holds_tokens(call.body.get(name)):
                raise ApiError(400, f"`{name}` should be text: this endpoint looks at what it is asked", param=name)
        judged = await judge_request(guards, self.judges, call.body, call.query)
        self._note(call, judged.verdicts)
        if (verdict := judged.refusal) is not None:
            raise ApiError(
                400,
                f"the request was refused by the guard `{verdict.guard}` of endpoint {call.endpoint.name!r}: "
                f"{verdict.reason}",
                code="content_filter",
                param=verdict.where or "messages",
            )
        call.body, call.query = judged.body, judged.query

    async def _passages(self, guards: InputGuards, call: Call, found: list[Passage]) -> list[Passage]:
        """Of the passages that were found for a request, those that its model may read."""
        kept, verdicts = await judge_passages(guards, self.judges, found)
        self._note(call, verdicts)
        return kept

    async def _events(self, call: Call, guard: AnswerGuard, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        options = call.body.get("stream_options") or {}
        guarded = guard.stream(
            events,
            choices=call.body.get("n") or 1,
            wants_usage=bool(options.get("include_usage")),
            on_over=lambda: call.end(200),
        )
        try:
            async for out in guarded:
                yield out
        except (GuardUnavailable, ImportError, ApiError) as error:
            fault = error if isinstance(error, ApiError) else self._unavailable(call, error)
            call.end(fault.status, fault.message)
            yield fault.event()
        finally:
            await guarded.aclose()
            await events.aclose()
            self._note(call, guard.verdicts)

    def _note(self, call: Call, verdicts: list[Verdict]) -> None:
        self.gateway.metrics.count_verdicts(call.endpoint.name, verdicts)
        for verdict in verdicts:
            if verdict.outcome != "pass":
                log.info(
                    "request %s: %s of guard %s (%s): %s",
                    call.request_id, verdict.outcome, verdict.guard, verdict.side, verdict.reason,
                )  # fmt: skip
        call.verdicts += verdicts

    def _unavailable(self, call: Call, error: Exception) -> ApiError:
        log.error("the guards of endpoint %s cannot judge: %s", call.endpoint.name, error)
        return ApiError(
            503, f"the guards of endpoint {call.endpoint.name!r} cannot judge; the log says why", code="guard_failed"
        )


def asks(guards: InputGuards | OutputGuards) -> bool:
    """Whether any guard is wanted."""
    return (
        guards.personal_data is not None
        or guards.length is not None
        or guards.language is not None
        or guards.harm is not None
        or (isinstance(guards, InputGuards) and guards.injection is not None)
    )


def _holds_tokens(value: object) -> bool:
    """Whether a prompt comes as ids of tokens, which are no text to look at."""
    return isinstance(value, list) and any(not isinstance(entry, str) for entry in value)
