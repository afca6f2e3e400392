"""Estimates what a training needs: parameters from a model's config.json, then memory by method and precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_ADAM = 8
"""Bytes a trained parameter: two fp32 moments."""
_RUNTIME = {"cuda": 1 << 30, "mps": 1 << 30, "cpu": 850 << 20}
"""What the libraries and the CUDA context take before there is a model."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder-only transformer."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Shape":
        """Read the dimensions from a config.json of the llama kind (llama, mistral, gemma, qwen)."""
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the linear modules of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.intermediate),
            (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        ]

    @property
    def embedding(self) -> int:
        """Parameters of one embedding table."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, without biases and without norms inside attention."""
        layer = sum(a * b for a, b in self.linears) + 2 * self.hidden
        return self.layers * layer + self.hidden + self.embedding * (1 if self.tied else 2)

    def trained(self, method: str, rank: int, embeddings: bool) -> int:
        """Parameters that change: all with method `full`, else those of a LoRA of `rank` on every linear module."""
        if method == "full":
            return self.parameters
        adapter = self.layers * sum(rank * (a + b) for a, b in self.linears)
        return adapter + (self.embedding * (1 if self.tied else 2) if embeddings else 0)


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for, at the largest moment of a step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.runtime


def estimate(
    shape: Shape,
    *,
    method: str,
    precision: str,
    batch: int,
    length: int,
    rank: int = 16,
    train_embeddings: bool = False,
    checkpointing: bool = False,
    device: str = "cpu",
) -> Estimate:
    """Memory of a training step of `batch` rows of `length` tokens.

    Full fine-tuning keeps fp32 weights (autocast computes in `precision`), LoRA a frozen base in `precision`, QLoRA
    one of 4.5 bits a parameter in the linear modules. Activations follow Korthikanti et al. 2022 (arXiv:2205.05198)
    without the attention matrix, which fused attention never stores: 34 bytes a token, layer and hidden unit at two
    bytes a value, adapted to grouped heads and the real width of the MLP; with checkpointing only the input of each
    layer and one layer's worth. The head works on chunks of the vocabulary, but a CPU keeps fp32 logits of a chunk.
    """
    width = _BYTES[precision]
    trained = shape.trained(method, rank, train_embeddings)
    linear = shape.layers * sum(a * b for a, b in shape.linears)
    other = shape.parameters - linear
    if method == "full":
        weights = 4 * shape.parameters + (width * linear if width < 4 else 0)
    elif method == "qlora":
        weights = int(linear * 4.5 / 8) + width * other + 4 * trained
    else:
        weights = width * shape.parameters + 4 * trained
    tokens = batch * length
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # Saved for the backward pass: inputs of the norms and linears, q k v and their rotated copies, the MLP's parts.
    values = 6 * shape.hidden + 3 * queries + 4 * keys + 4 * shape.intermediate
    if method != "full":
        # Each adapted module also keeps its input once more and its low-rank product.
        values += 5 * shape.hidden + 2 * queries + shape.intermediate + 7 * rank
    layer = tokens * values * width
    kept = tokens * shape.hidden * width * shape.layers + layer if checkpointing else layer * shape.layers
    head = min(tokens, 1024) * shape.vocabulary * 4 * 3
    return Estimate(
        weights=weights,
        gradients=4 * trained,
        optimizer=_ADAM * trained,
        activations=kept + head,
        runtime=_RUNTIME[device],
    )
