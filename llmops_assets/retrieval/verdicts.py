"""What is asked of an index before its name stands for it."""

from collections.abc import Sequence

from llmops_assets.verdict import Verdict

LEAST_AGREEMENT = 0.95
"""Of the exactly nearest ten: an engine that finds less is set up wrongly (HNSW's defaults find .98 and more)."""


def no_erased_passages(dataset: str, status: str, buried: Sequence[str], name: str) -> Verdict:
    """Whether the index holds nothing that was erased: its version is in use, and none of its passages was buried."""
    if status == "erased":
        return Verdict(
            False,
            f"{dataset} was erased on a person's request: build the index of the version that follows it "
            f"(llmops dataset show {dataset}).",
        )
    if buried:
        listed = ", ".join(buried[:5])
        return Verdict(
            False,
            f"{len(buried)} passages of {dataset} were erased on a person's request and came back with it: {listed}. "
            f"{name} stays what it was. Take them out of the source, and register another version.",
            {"passages": len(buried)},
        )
    return Verdict(True, f"No passage of {dataset} was erased.")


def same_encoder(ref: str, registered: str, used: str, folder: str) -> Verdict:
    """Whether the vectors are by the very encoder that questions will be embedded with."""
    if len({registered, used, folder}) == 1:
        return Verdict(True, f"Passages and questions are embedded by {ref} ({registered}).")
    return Verdict(
        False,
        f"The vectors are by an encoder of content {used}; {ref} was recorded as {registered}, and its folder holds "
        f"{folder} now. Vectors of two encoders say nothing about each other: restore the encoder, and build again.",
    )


def counts_match(passages: int, vectors: int, sparse: int, staged: int) -> Verdict:
    """Whether each passage has a vector, a sparse vector, and a point in the engine."""
    figures: dict[str, float | int | str] = {
        "passages": passages,
        "vectors": vectors,
        "sparse": sparse,
        "points": staged,
    }
    if {passages} == {vectors, sparse, staged}:
        return Verdict(True, f"{passages:,} passages, each with a vector, a sparse vector and a point.", figures)
    return Verdict(
        False,
        f"{passages:,} passages have {vectors:,} vectors, {sparse:,} sparse vectors and {staged:,} points in the "
        "engine: build the index again.",
        figures,
    )


def finds_as_exact(agreement: float, asked: int, engine: str) -> Verdict:
    """Whether the engine finds what comparing with every passage finds."""
    text = f"{engine} finds {agreement:.1%} of the exactly nearest ten, over {asked:,} questions."
    figures: dict[str, float | int | str] = {"agreement": round(agreement, 4), "asked": asked}
    if agreement >= LEAST_AGREEMENT:
        return Verdict(True, text, figures)
    return Verdict(
        False, f"{text} At least {LEAST_AGREEMENT:.0%} is asked for: look at the server's HNSW settings.", figures
    )
