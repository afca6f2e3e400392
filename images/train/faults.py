"""What breaks a training from outside of it (memory, disk, inputs that changed), in words that one can act on."""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmops_assets.records.jobs import MergeJob, ModelFolder, TrainJob
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources import content

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files are limited in size",
}
# safetensors and torch.save tell the error of the system in words only.
_DISK_WORDS = {"os error 28": errno.ENOSPC, "os error 27": errno.EFBIG, "os error 122": errno.EDQUOT}
_TORCH_WRITER = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")
_INDEX_WORDS = "index out of range in self"
_ASSERT_WORDS = ("device-side assert triggered", "srcIndex < srcSelectDimSize")
_OTHER = {"rows": "other rows", "base model": "another base model", "recipe": "another recipe"}
_TOKEN_COLUMNS = ("ids", "prompt", "chosen", "rejected", "completion")
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")


class OutOfMemory(RuntimeError):
    """The training needed more memory than there is."""


class DiskFull(OSError):
    """A checkpoint or the weights could not be written."""


class TokenOutOfRange(IndexError):
    """A row has a token that the embeddings have no row for."""


class InputsChanged(RuntimeError):
    """What a training is made of is not what was planned, or not what its checkpoint was made of."""


def gib(count: float) -> str:
    """A number of bytes in words, of a size that people compare."""
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def identity(spec: TrainJobSpec, job: TrainJob) -> dict[str, str]:
    """What decides the weights, by part: a checkpoint goes on only with what it began with."""
    seal = Path(job.plan_dir) / folders.SEAL
    try:
        files = json.loads(seal.read_text(encoding="utf-8"))["files"] if seal.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputsChanged(
            f"the planned rows in {job.plan_dir} cannot be used: their {folders.SEAL} cannot be read. Materialise "
            "training_plan again"
        ) from error
    base = (job.base.content_hash if job.base else None) or ""
    parts = {
        "rows": canonical_json(files),
        "base model": base,
        "recipe": canonical_json(spec.weights_recipe()),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}


def check_inputs(job: TrainJob | MergeJob) -> None:
    """Raise InputsChanged when the planned rows or a model that the job reads are not there, or not what they were."""
    plan_dir = Path(job.plan_dir)
    files = content.listing(plan_dir)
    fault = folders.damage(plan_dir, files)
    if fault is not None:
        raise InputsChanged(f"the planned rows in {plan_dir} cannot be used: {fault}. Materialise training_plan again")
    planned = content.changed_files(files, job.plan_files) if job.plan_files else {}
    if planned:
        raise InputsChanged(
            f"{content.in_words(planned)} what was planned: look into {plan_dir}. Delete it, and materialise "
            "training_plan again"
        )
    for name, model in (("base model", job.base), ("reward model", job.reward), ("retriever", job.retriever)):
        if model is not None:
            _check_model(name, model)


def _check_model(name: str, model: ModelFolder) -> None:
    folder = Path(model.path)
    if not (folder / "config.json").exists():
        raise InputsChanged(f"the {name} is gone: no {folder / 'config.json'}. Restore it, or train it again")
    if model.content_hash and (found := content.difference(folder, model.content_hash, model.files)) is not None:
        raise InputsChanged(
            f"the {name} at {folder} was changed after this training was planned: {found} what it was with the content "
            f"{model.content_hash}. Put it back; or register it anew (`llmops model register`), have it approved, and "
            "request the training again"
        )


def check_trained(job: MergeJob) -> None:
    """Raise InputsChanged when the trained weights, or how they are applied, are not what the training left."""
    folder = Path(job.adapter)
    files = content.listing(folder)
    fault = folders.damage(folder, files)
    changed = content.changed_files(files, job.adapter_files) if job.adapter_files else {}
    if fault is not None or changed:
        found = f"{content.in_words(changed)} what was trained" if changed else fault
        raise InputsChanged(
            f"the trained weights in {folder} cannot be used: {found}. Restore the folder from a backup, or delete it "
            "and materialise adapter again"
        )


def check_resumable(step: int, checkpoint: Path, ours: Mapping[str, str]) -> None:
    """Raise InputsChanged when a checkpoint was made of other rows, another base or another recipe."""
    theirs = (folders.facts(checkpoint) or {}).get("identity")
    if theirs is None:
        return
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise InputsChanged(
            f"the checkpoint of step {step} was made with {' and '.join(_OTHER[name] for name in other)}: going "
            f"on from it would give weights of neither. Delete {checkpoint.parent} to begin anew"
        )


def checkpoint_bytes(model: Any) -> int:
    """About what a checkpoint of `model` takes on disk: the trained weights, and Adam's two moments of each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return sum(p.numel() * (p.element_size() + 8) for p in trained)


def check_disk(folder: Path, needed: int) -> None:
    """Raise DiskFull when not even one checkpoint of `needed` bytes has room beside `folder`'s other files."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            errno.ENOSPC,
            f"a checkpoint takes about {gib(needed)} and {gib(free)} are free: make room, or put LLMOPS_ARTIFACT_ROOT "
            "on a larger disk",
            str(folder),
        )


@contextmanager
def explained(job: TrainJob, needed: Mapping[str, int]) -> Iterator[None]:
    """Say of an error for want of memory or disk what was needed; half-written checkpoints go.

    `needed` may be filled in by the body: the bytes of a `checkpoint`.
    """
    try:
        yield
    except IndexError as error:
        if _INDEX_WORDS not in str(error):
            raise
        raise TokenOutOfRange(_token_words(job)) from error
    except (MemoryError, RuntimeError) as error:
        if any(words in str(error) for words in _ASSERT_WORDS):
            raise TokenOutOfRange(f"{_token_words(job)} (the GPU reported: {_first_line(error)})") from error
        if (fault := _disk_fault(error)) is not None:
            raise _disk_full(fault, job, needed) from error
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _MEMORY_WORDS):
            raise
        raise OutOfMemory(_memory_words(job, error)) from error
    except OSError as error:
        if isinstance(error, DiskFull) or error.errno not in _DISK:
            raise
        raise _disk_full(error.errno, job, needed) from error
    except Exception as error:
        # SafetensorError is an Exception of its own.
        if (fault := _disk_fault(error)) is None:
            raise
        raise _disk_full(fault, job, needed) from error


def _disk_fault(error: BaseException) -> int | None:
    text = str(error)
    found = next((number for words, number in _DISK_WORDS.items() if words in text), None)
    return errno.ENOSPC if found is None and any(words in text for words in _TORCH_WRITER) else found


def _disk_full(number: int, job: TrainJob, needed: Mapping[str, int]) -> DiskFull:
    folder = Path(job.checkpoints)
    for _step, path in folders.checkpoints(folder):
        if not (path / folders.SEAL).exists():
            # It would never count, and what it takes is what is lacking.
            shutil.rmtree(path, ignore_errors=True)
    step, _path, _warnings = folders.last_checkpoint(folder)
    kept = f"the checkpoint of step {step} is whole, the next run goes on from it" if step else "no checkpoint is whole"
    free = gib(shutil.disk_usage(folder).free)
    size = gib(needed["checkpoint"]) if "checkpoint" in needed else "more than that"
    return DiskFull(
        number,
        f"{_DISK[number]}: a checkpoint takes about {size} and {free} are free. Make room, then resume; {kept}",
        str(folder),
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _token_words(job: TrainJob) -> str:
    """Which token of the planned rows has no embedding, by how much; or that none is, where all have one."""
    from transformers import AutoTokenizer

    from images.train import sealed
    from images.train.trained_modules import embedding_rows, modules_of

    plan_dir = Path(job.plan_dir)
    columns = [c for c in sealed.read_parquet(plan_dir / "train.parquet") if c.name in _TOKEN_COLUMNS]
    largest = max((int(column.explode().max() or 0) for column in columns), default=0)
    held = embedding_rows(modules_of(Path(job.base.path))) if job.base is not None else None
    if held is None or largest < held:
        return (
            f"the model looked up what it does not have, though its {held} embeddings hold all ids of the rows, up to "
            f"{largest}. Is max_seq_len more than its positions (max_position_embeddings)?"
        )
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    return (
        f"the rows have the token {tokenizer.convert_ids_to_tokens(largest)!r} (id {largest}), and the embeddings of "
        f"the base have {held} rows, for ids 0 to {held - 1}: its tokenizer is not that of its weights. Resize the "
        "embeddings (resize_token_embeddings) and register the base anew"
    )


def _memory_words(job: TrainJob, error: BaseException) -> str:
    memory, plan = job.memory, ""
    if memory is not None:
        there = f" of the {gib(memory.available)} that it may fill" if memory.available else ""
        plan = f" The plan reckoned with {gib(memory.needed)}{there}."
    first = _first_line(error)
    advice = (memory.advice if memory is not None else "") or "lower batch_size, or max_seq_len"
    return f"out of memory.{plan} What would take less: {advice}. The library wrote: {first}"
