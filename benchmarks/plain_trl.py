"""What a user would write instead: a fine-tuning with TRL's SFTTrainer alone, on the same rows with the same settings.

`python -m benchmarks.plain_trl JOB.json` trains and writes the figures to the job's `result`.
"""

import json
import sys
import time
from pathlib import Path


def main(job_file: str) -> None:
    began = time.monotonic()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
    quantised = None
    if job["method"] == "qlora":
        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=kind)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=kind, quantization_config=quantised)
    rows = [json.loads(line) for line in Path(job["rows"]).read_bytes().splitlines()]
    hyper = job["hyperparams"]
    arguments = SFTConfig(
        output_dir=job["output"],
        max_steps=hyper["max_steps"],
        per_device_train_batch_size=hyper["batch_size"],
        learning_rate=hyper["lr"],
        max_length=hyper["max_seq_len"],
        save_steps=hyper["save_steps"],
        seed=hyper["seed"],
        bf16=job["precision"] == "bf16",
        use_cpu=job["device"] == "cpu",
        assistant_only_loss=True,
        report_to="none",
        disable_tqdm=True,
        **job.get("options", {}),
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=hyper["lora_rank"],
            lora_alpha=2 * hyper["lora_rank"],
            target_modules="all-linear",
        ),
    )
    trained = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - trained
    trainer.save_model(job["output"])
    from images.train.progress import peak_memory

    tokens = next(e["num_tokens"] for e in reversed(trainer.state.log_history) if "num_tokens" in e)
    figures = {
        "seconds": seconds,
        "whole_seconds": time.monotonic() - began,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": peak_memory(),
    }
    Path(job["result"]).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
