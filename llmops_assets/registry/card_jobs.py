"""What a model card says of each job type: how the model is loaded, and what its figures do not tell."""

from llmops_assets.specs.training import TrainJobSpec

_TEXT = ("transformers", "text-generation")
_LIBRARY = {"EMBEDDING": ("sentence-transformers", "sentence-similarity")}

_EXACT = (
    "The accuracy of `test` is by exact match on rows drawn as the training rows were: it says nothing of questions on "
    "other subjects, or worded in another way than users of that data do."
)


def library(job_type: str) -> tuple[str, str]:
    """The library that loads a model, and its task on the hub."""
    return _LIBRARY.get(job_type, _TEXT)


def usage(spec: TrainJobSpec, ref: str) -> str | None:
    """How the version `ref` is used where that is not plain generation."""
    folder = f"./{ref.partition('@')[0]}"
    if spec.job_type == "EMBEDDING":
        prompts = [f"{name} `{text}`" for name, text in _prompts(spec) if text]
        behind = f" Texts were trained behind prompts: {', '.join(prompts)}." if prompts else ""
        return (
            f"After `llmops model download {ref} {folder}`:\n\n"
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("{folder}")\n'
            'vectors = model.encode(["…"], prompt_name="query")  # passages: prompt_name="document"\n```\n\n'
            f"Vectors are of length 1: their product is the cosine.{behind}"
        )
    if spec.job_type == "RAG_TUNING":
        return (
            f"The generator is the folder itself, `retriever/` finds passages, `index/` holds those of the dataset "
            f"(`vectors.safetensors` in the order of `passages.parquet`). `rag.json` says how they belong together: "
            f"the nearest {spec.rag.passages} passages go into this prompt.\n\n```\n{spec.rag.template}\n```"
        )
    return None


def limits(spec: TrainJobSpec) -> str:
    """What the figures of a job type do not say."""
    if spec.job_type == "PRETRAIN":
        return (
            "It continues text. It was trained on no conversations and answers no questions. Perplexity compares only "
            "models with the same tokenizer; bits per byte compares others too."
        )
    if spec.job_type == "EMBEDDING":
        return (
            "Recall is over the passages of the test split, which are fewer and more alike than those that a search "
            "engine holds: among more passages it is lower."
        )
    if spec.job_type == "RLHF" and spec.rlhf.algorithm == "kto":
        return (
            "`preference_accuracy` is how often the model, against its base, gives a good answer more than a bad one, "
            "which may belong to another prompt. It says nothing of the answers that the model writes itself."
        )
    if spec.job_type == "RLHF" and spec.rlhf.algorithm == "dpo":
        return (
            "`preference_accuracy` is how often the model, against its base, prefers what people preferred. It says "
            "nothing of the answers that the model writes itself."
        )
    if spec.job_type == "RLHF":
        return (
            "`preference_accuracy` is that of the reward model, and `win_rate` is its opinion of the answers: the "
            "policy was made to please it. A person's opinion may differ."
        )
    if spec.job_type == "RAG_TUNING":
        return f"{_EXACT} `gold` is the reader with the right passages, `test` with those that its retriever finds."
    return _EXACT


def _prompts(spec: TrainJobSpec) -> list[tuple[str, str]]:
    return [("query", spec.embedding.query_prompt), ("document", spec.embedding.passage_prompt)]
