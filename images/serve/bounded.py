"""`transformers serve` with two faults of its continuous batching mended (transformers 5.23).

A request that does not fit into the key-value cache ends its worker thread, and with it the server, for everybody; here
it is refused with status 400, and an answer is cut where the cache or the model's positions end. And the first request
decides for all later ones how tokens are chosen; here that is greedily and without the penalties that a folder's
generation_config may carry, as in the evaluation that the model passed.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from images.chat_rendering import keep_text
from images.serve import token_ids
from images.serve.engines import Cache, Limits
from images.serve.leaving import EndWithClient


def _bounded(manager: type, limits: Limits) -> type:
    """A subclass of transformers' batching manager that admits what fits into its cache."""

    class BoundedManager(manager):
        def init_cb(self, model: Any, gen_config: Any) -> None:
            from transformers import GenerationConfig

            stop = {"eos_token_id": gen_config.eos_token_id, "pad_token_id": gen_config.pad_token_id}
            super().init_cb(model, GenerationConfig(**stop, do_sample=False, use_cache=False))

        def generate_streaming(self, model: Any, processor: Any, inputs: dict, gen_config: Any, **more: Any) -> Any:
            _admit(inputs, gen_config, processor, limits)
            return super().generate_streaming(model, processor, inputs, gen_config, **more)

        async def generate_non_streaming(
            self, model: Any, processor: Any, inputs: dict, gen_config: Any, **more: Any
        ) -> Any:
            _admit(inputs, gen_config, processor, limits)
            try:
                generated = await super().generate_non_streaming(model, processor, inputs, gen_config, **more)
            except asyncio.CancelledError:
                # Its client is gone: nobody reads the rest.
                self._cb.cancel_request(more["request_id"])
                raise
            token_ids.note(inputs["input_ids"], generated[2])
            return generated

    return BoundedManager


def _admit(inputs: dict, gen_config: Any, processor: Any, limits: Limits) -> None:
    """Refuse a prompt that is too long, else cut the answer to what room is left and let it end."""
    from fastapi import HTTPException

    tokens = len(inputs["input_ids"])
    if tokens > limits.max_input:
        raise HTTPException(
            400, f"the prompt has {tokens} tokens and this model takes {limits.max_input}: shorten the conversation"
        )
    wanted = gen_config.max_new_tokens or limits.max_output
    if wanted < 1:
        raise HTTPException(400, f"max_tokens must be at least 1, not {wanted}")
    gen_config.max_new_tokens = min(wanted, limits.max_output, limits.total - tokens)
    if gen_config.eos_token_id is None:
        gen_config.eos_token_id = processor.eos_token_id


def _refusing_templates(render: Callable[..., Any]) -> Callable[..., Any]:
    """`apply_chat_template`, where a conversation that the template does not take is the client's fault.

    Gemma's refuses a system message, Mistral's two questions in a row; as a failure of the server it would be asked of
    another one, and count against this.
    """

    @wraps(render)
    def rendered(*arguments: Any, **more: Any) -> Any:
        from fastapi import HTTPException
        from jinja2 import TemplateError

        try:
            return render(*arguments, **more)
        except (TemplateError, TypeError, KeyError, AttributeError) as error:
            raise HTTPException(400, f"the model's chat template does not take this conversation: {error}") from error

    return rendered


def serve(model: str, host: str, port: int, limits: Limits, cache: Cache, *, device: str, dtype: str) -> None:
    """Serve the model folder `model` until SIGTERM; requests in flight are answered first."""
    from transformers import PreTrainedTokenizerBase
    from transformers.cli.serve import Serve
    from transformers.cli.serving import chat_completion, server, utils

    # What a user writes must not end his turn: a control token in it is text, as it was in training and evaluation.
    PreTrainedTokenizerBase.apply_chat_template = _refusing_templates(
        keep_text(PreTrainedTokenizerBase.apply_chat_template)
    )

    build_server = server.build_server
    server.build_server = lambda *arguments, **more: EndWithClient(build_server(*arguments, **more))
    utils.CBGenerateManager = _bounded(utils.CBGenerateManager, limits)
    chat_completion.ChatCompletionHandler = token_ids.handler(chat_completion.ChatCompletionHandler)
    # One line a request, for as long as the server runs, would only fill the disk; the gateway logs requests.
    logging.getLogger("uvicorn.access").addFilter(lambda record: False)
    Serve(
        model,
        continuous_batching=True,
        device=device,
        dtype=dtype,
        cb_block_size=cache.block_tokens,
        cb_num_blocks=cache.holding(limits),
        cb_max_batch_tokens=cache.batch_tokens,
        host=host,
        port=port,
        log_level="error",
    )
