"""What runs of ours inside Axolotl: live metrics, sealed checkpoints, stop requests, and the facts of the end."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from images.atomic_write import write_atomically

_PAIR_COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids"]


class Arguments(BaseModel):
    """The keys that this plugin adds to Axolotl's configuration."""

    llmops_job: str | None = None
    llmops_patience: int | None = None
    llmops_min_delta: float | None = None


class Plugin(BasePlugin):
    """Named in the configuration by the worker; it takes the worker's job from `llmops_job`."""

    def get_input_args(self) -> str:
        return "images.train.axolotl_plugin.Arguments"

    def register(self, cfg: Any) -> None:
        """Refuse keys that Axolotl's schema passes over in silence: a setting that does nothing is no setting."""
        from axolotl.utils.schemas.config import AxolotlInputConfig

        # Of the file, because the command line adds keys of its own that the schema does not know either.
        written = yaml.safe_load(Path(cfg["axolotl_config_path"]).read_text(encoding="utf-8"))
        known = {*AxolotlInputConfig.model_fields, *Arguments.model_fields}
        if unknown := sorted(set(written) - known):
            raise ValueError(f"axolotl has no setting {', '.join(unknown)}")

    def pre_lora_load(self, cfg: Any, model: Any) -> None:
        import torch

        # The adapter starts as it does under our own trainer: from the seed, whatever was drawn before.
        torch.manual_seed(cfg.seed)

    def post_model_load(self, cfg: Any, model: Any) -> None:
        from images.train.weights import keep_four_bits

        keep_four_bits(model)

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        from transformers import EarlyStoppingCallback, TrainerCallback

        from images.train import faults
        from images.train.progress import Progress, Snapshot, StopWithCheckpoint, Watch
        from images.train.reporter import Reporter
        from llmops_assets.records.jobs import TrainJob, read_job

        if cfg.warmup_steps is not None:
            # Axolotl makes two of one.
            trainer.args.warmup_steps = cfg.warmup_steps
        job = read_job(Path(cfg.llmops_job).read_text(encoding="utf-8"))
        assert isinstance(job, TrainJob)
        reporter = Reporter({"metrics": job.metrics})
        reporter.speak_to_worker()
        self._job, self._trainer, self._reporter = job, trainer, reporter
        self._spec = job.spec
        self._start = Snapshot(trainer.model)
        # Where Axolotl itself reads them: in a folder that does not outlive the training.
        rows = Path(cfg.datasets[0]["path"])
        self._progress = Progress(
            reporter, Watch(trainer, lambda batch: _named(batch, rows)), faults.identity(self._spec, job)
        )
        plugin = self

        class Listen(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                # Axolotl sets its own handler just before: it would save a half-trained model as the result.
                reporter.listen(job)
                plugin._graceful = reporter.finishing_first()
                plugin._graceful.__enter__()
                plugin._began = time.monotonic()

        added: list[Any] = [self._progress, Listen()]
        if cfg.llmops_patience:
            added += [EarlyStoppingCallback(cfg.llmops_patience, cfg.llmops_min_delta or 0.0), StopWithCheckpoint()]
        return added

    def post_train(self, cfg: Any, model: Any) -> None:
        """Save the weights and what is to be known of them. Axolotl calls it twice: the second time changes nothing."""
        facts_file = Path(cfg.llmops_job).with_name("facts.json")
        if facts_file.exists():
            return
        self._graceful.__exit__(None, None, None)
        facts = self._facts()
        write_atomically(facts_file, json.dumps(facts).encode())
        if "stopped" in facts:
            sys.stdout.flush()
            os._exit(0)

    def _facts(self) -> dict[str, Any]:
        from images.train.session import Session, outcome, stopped
        from images.train.weights import save

        job, trainer, spec = self._job, self._trainer, self._spec
        if (message := stopped(trainer.state, self._reporter)) is not None:
            return {"stopped": message}
        stopping = trainer.args.load_best_model_at_end

        def figures() -> dict[str, float]:
            if spec.rlhf is None:
                return {}
            from images.train.likelihood import MEASURED, implicit_rewards

            rows = (trainer.eval_dataset or trainer.train_dataset).select_columns(_PAIR_COLUMNS)[:MEASURED]
            pad = trainer.processing_class.pad_token_id or 0
            pairs = {name.removesuffix("_ids"): values for name, values in rows.items()}
            return implicit_rewards(trainer, pad, pairs, spec.rlhf.kl_coeff)

        def write(output: Path) -> str:
            stop_token = job.stop_token
            return save(trainer.model, trainer.processing_class, output, stop_token, full=spec.method == "full")

        session = Session(
            trainer=trainer,
            evaluated=trainer.eval_dataset is not None,
            save=write,
            stopping=spec.hyperparams.early_stopping if stopping else None,
            figures=figures,
        )
        seconds = time.monotonic() - self._began
        return outcome(session, self._progress, self._start, seconds, job.resumed_from, Path(job.output))


def _named(batch: Any, path: Path) -> list[str]:
    """Row ids of the rows in a batch, which are those of the file at `path`."""
    import pyarrow.parquet

    from images.train.batch_rows import rows_in

    ids = json.loads(path.with_suffix(".ids.json").read_text(encoding="utf-8"))
    table = pyarrow.parquet.read_table(path).to_pydict()
    if "input_ids" in table:
        return rows_in(batch, ids, table["input_ids"])
    sequences = [
        prompt + answer
        for side in ("chosen_ids", "rejected_ids")
        for prompt, answer in zip(table["prompt_ids"], table[side], strict=True)
    ]
    return rows_in(batch, ids * 2, sequences)
