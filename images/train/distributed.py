"""Several processes that share one training: what each is told, how they are started, and how they agree.

On GPUs accelerate shards by itself. On CPUs it would only average the gradients; there the same FSDP is switched on by
hand, which is how a machine without a GPU can prove it.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.atomic_write import write_atomically
from images.train import subprocesses
from images.train.reporter import Reporter, Stopped
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders

RENDEZVOUS = "LLMOPS_RENDEZVOUS"
"""host:port of the first node, for a training on several nodes."""
NODE_RANK = "LLMOPS_NODE_RANK"
"""Which of the nodes this one is, from 0."""


class LaunchError(RuntimeError):
    """The processes of a training did not start, or one of them failed; the message says which log to read."""


def processes(job: TrainJob) -> int:
    """How many processes share the training of a job, on all its nodes together."""
    return max(1, job.gpus) * job.spec.resources.nodes


def sharding(job: TrainJob) -> str | None:
    """How the processes share a training: fsdp, zero2, zero3 or ddp; None where it is one."""
    return (job.spec.resources.sharding or "fsdp") if processes(job) > 1 else None


def command(job_file: Path | str, *, gpus: int, nodes: int, environ: Mapping[str, str]) -> list[str]:
    """torchrun's command line for the processes of this node; on several nodes each runs the same with its own rank."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(max(1, gpus))]
    if nodes == 1:
        torchrun += ["--standalone"]
    else:
        if RENDEZVOUS not in environ or NODE_RANK not in environ:
            raise LaunchError(
                f"a training on {nodes} nodes needs {RENDEZVOUS} (host:port of the first node) and {NODE_RANK} (0 to "
                f"{nodes - 1}) in the environment of the worker on each of them"
            )
        torchrun += ["--nnodes", str(nodes), "--node_rank", environ[NODE_RANK], "--rdzv_backend", "c10d"]
        torchrun += ["--rdzv_endpoint", environ[RENDEZVOUS], "--rdzv_id", Path(job_file).parent.parent.name]
    return [*torchrun, "-m", "images.train.rank", str(job_file)]


def arguments(job: TrainJob) -> dict[str, Any]:
    """What transformers' TrainingArguments are told beyond those of one process."""
    how = sharding(job)
    if how is None:
        return {}
    backend = {"ddp_backend": "gloo"} if job.device == "cpu" else {}
    if how == "ddp":
        return {**backend, "ddp_find_unused_parameters": False}
    if how == "fsdp":
        # Sharded checkpoints: each process writes its part, and none gathers the whole model while others wait.
        config = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "SHARDED_STATE_DICT"}
        return {**backend, "fsdp": True, "fsdp_config": config}
    return {"deepspeed": deepspeed_config(3 if how == "zero3" else 2)}


def deepspeed_config(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a ZeRO stage; what `auto` stands for comes from the training's own arguments."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def rank() -> int:
    """Which of the processes this one is; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes share this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def shard_on_cpu(trainer: Any) -> None:
    """Make accelerate shard a trainer's model on CPUs too, as it does on GPUs, where FSDP was asked for."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if not trainer.args.fsdp or state.distributed_type != DistributedType.MULTI_CPU:
        return
    state._shared_state["distributed_type"] = state.distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    trainer.is_fsdp_enabled = True


def full_state(model: Any) -> dict[str, Any] | None:
    """The whole weights of a sharded model, on every process; None for one that is whole as it is."""
    state = model.state_dict()
    if not any(hasattr(tensor, "full_tensor") for tensor in state.values()):
        return None
    return {name: whole(tensor) for name, tensor in state.items()}


def whole(tensor: Any) -> Any:
    """A tensor, gathered from its shards where it has any; every process must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def any_process(flag: bool) -> bool:
    """Whether any of the processes says so; all must ask at the same point of the training."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flags = torch.tensor([int(flag)], device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def together() -> None:
    """Wait until every process has come here."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def launch(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """Run the processes of this node to their end; the facts that the first of them sealed."""
    output = Path(job.output)
    folder = output.parent / "work"
    folder.mkdir(parents=True, exist_ok=True)
    job_file, stop, failed, log = (folder / f"ranks.{name}" for name in ("json", "stop", "error", "log"))
    for left in (stop, failed):
        left.unlink(missing_ok=True)
    job_file.write_text(job.model_copy(update={"stop": str(stop)}).model_dump_json(), encoding="utf-8")
    started = command(job_file, gpus=job.gpus, nodes=spec.resources.nodes, environ=os.environ)
    reporter.log.info("%d processes share this training (%s)", processes(job), sharding(job))
    with reporter.finishing_first(), open(log, "w", encoding="utf-8") as written:
        process = subprocesses.start(started, {**os.environ, "LLMOPS_WORKER_PID": str(os.getpid())})
        threading.Thread(target=_pass_on, args=(reporter, process, stop), daemon=True).start()
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                reporter.pass_on(line, written)
    ended = folder / "ranks.stopped"
    if ended.exists():
        message = ended.read_text(encoding="utf-8")
        ended.unlink()
        raise Stopped(message)
    facts = folders.facts(output)
    if failed.exists():
        raise LaunchError(f"{failed.read_text(encoding='utf-8')}\nlog of all processes: {log}")
    if process.returncode != 0 or (facts is None and spec.resources.nodes == 1):
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-15:]
        raise LaunchError("\n".join([f"the processes ended with code {process.returncode}; their log: {log}", *lines]))
    return facts or {}


def _pass_on(reporter: Reporter, process: subprocess.Popen, stop: Path) -> None:
    """Tell the processes of a stop request, by a file that all of them watch."""
    while process.poll() is None:
        if reporter.stop_reason:
            write_atomically(stop, reporter.stop_reason.encode())
            return
        time.sleep(0.1)
