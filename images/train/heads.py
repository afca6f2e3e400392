"""What TRL's fused language-model head is told of a model."""

from typing import Any

from trl.trainer import utils as trl_utils


def small_head(model: Any) -> None:
    """Let the head take a buffer no larger than the vocabulary: it takes one for its whole chunk otherwise."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE, vocabulary)
