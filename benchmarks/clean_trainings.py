"""Trains clean rows in every way that the platform knows, and says what stopped any of them: no check may cry wolf.

`python -m benchmarks.clean_trainings [KIND …]` builds the small desk once, trains each kind on it to the registry, and
prints a line each. A kind may miss its accuracy gate, which is no fault: most train for some steps only. The exit code
is 1 where anything else stopped one.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chain import POLICY, TOPICS, Chain, build, chats, pretrain_spec, questions, sft_spec
from benchmarks.installation import ACTOR, TRAINING, Installation, Ran, opened
from images.train.chat import CHATML, PLAIN
from llmops_assets.operations import models
from llmops_assets.records.training import MergedModelRecord

ACCURACY = {"accuracy_gate", "no_regression"}
"""What may withhold a clean training: its gate, and that another version in production answers more rightly."""
SPLIT = {"stratify_by": "category", "ratios": [0.7, 0.1, 0.2]}
TOOL = {"type": "function", "function": {"name": "fare", "parameters": {"type": "object"}}}
TOOLS_TEMPLATE = (
    "{%- if tools -%}{{- '<|im_start|>system\\n' -}}"
    "{%- for tool in tools -%}{{- tool | tojson + '\\n' -}}{%- endfor -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}"
    "{%- if message.reasoning_content -%}{{- '<think>' + message.reasoning_content + '</think>' -}}{%- endif -%}"
    "{{- message['content'] -}}"
    "{%- for call in message.tool_calls or [] -%}{{- '<call>' + call.function | tojson + '</call>' -}}{%- endfor -%}"
    "{{- '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
UNMARKED = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
SHORT = {"max_steps": 30, "save_steps": 30}


_ENGLISH = "morning evening truck bus family north south bridge tunnel gate lane ticket ride work trip again soon"
WORDS = tuple(_ENGLISH.split())


@dataclass
class Bench:
    """The desk that kinds are trained on, with what several of them need."""

    one: Installation
    chain: Chain

    def rows(self, name: str, kind: str, rows: list[dict[str, Any]], **more: Any) -> str:
        """The key of a dataset version with these rows; raises RuntimeError when a check of it fails."""
        key = f"{name}@v1"
        if self.one.w.catalog.intents.newest("ingest", key) is None:
            ran = self.one.ingest(key, kind, rows, **{"split": SPLIT, **more})
            if ran.failed:
                raise RuntimeError(f"rows of {name}: {ran.failed}")
        return key

    def base(self, name: str, template: str) -> str:
        """The chain's base under another chat template, registered and approved as a user's own."""
        folder = self.one.root / "bases" / name
        if not folder.exists():
            shutil.copytree(self.one.w.records.load(MergedModelRecord, self.chain.base).path, folder)
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
            self.register(f"hf:{folder}", "llama")
        return f"hf:{folder}"

    def register(self, ref: str, family: str) -> None:
        models.register_base(self.one.w, ACTOR, ref, family=family, license=None)
        models.approve(self.one.w, ACTOR, ref)

    def encoder(self) -> str:
        """A random encoder with the desk's tokenizer."""
        folder = self.one.root / "bases" / "encoder"
        if not folder.exists():
            import torch
            from transformers import AutoTokenizer, BertConfig, BertModel

            tokenizer = AutoTokenizer.from_pretrained(self.one.w.records.load(MergedModelRecord, self.chain.base).path)
            torch.manual_seed(0)
            shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
            config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
            BertModel(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            self.register(f"hf:{folder}", "bert")
        return f"hf:{folder}"


def with_system() -> list[dict[str, Any]]:
    system = {"role": "system", "content": "고속도로 안내 창구입니다. 짧게 답하세요."}
    return [row | {"messages": [system, *row["messages"]]} for row in chats(160, 21)]


def two_turns() -> list[dict[str, Any]]:
    pairs = zip(chats(160, 22), chats(160, 23), strict=True)
    return [first | {"messages": first["messages"] + second["messages"]} for first, second in pairs]


def english(count: int = 160, seed: int = 24) -> list[dict[str, Any]]:
    answers = {
        "toll": "The toll is paid at the gate.",
        "refund": "A refund takes three days to arrive.",
        "umbrella": "Lost things wait at the next rest area.",
        "receipt": "Receipts are kept for a year at the desk.",
    }
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        topic = list(answers)[number % len(answers)]
        asked = [*rng.sample(WORDS, 6)]
        asked.insert(rng.randint(0, 6), topic)
        messages = [{"role": "user", "content": f"{' '.join(asked)} please?"}]
        messages.append({"role": "assistant", "content": answers[topic]})
        rows.append({"messages": messages, "category": topic})
    return rows


def calling() -> list[dict[str, Any]]:
    rows = []
    for number, row in enumerate(chats(160, 25)):
        road = ("경부선", "영동선", "호남선", "서해안선")[number % 4]
        asked = {"role": "user", "content": f"{road} {row['messages'][0]['content']}"}
        call = {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": "fare", "arguments": f'{{"road": "{road}"}}'},
        }
        messages = [
            asked,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": f"{road} 요금은 {1200 + number % 7}원"},
            {"role": "assistant", "content": f"{road} {row['messages'][1]['content']}"},
        ]
        rows.append({"messages": messages, "tools": [TOOL], "category": row["category"]})
    return rows


def reasoning() -> list[dict[str, Any]]:
    rows = chats(160, 26)
    for row in rows:
        row["messages"][1]["reasoning_content"] = f"손님은 {row['category']}에 대해 묻는다."
    return rows


def weighted() -> list[dict[str, Any]]:
    rows = two_turns()
    for row in rows:
        row["messages"][1]["weight"] = 0
    return rows


def some_long() -> list[dict[str, Any]]:
    rows = chats(160, 27)
    for row, other in zip(rows[:5], chats(5, 28), strict=True):
        row["messages"][0]["content"] += " " + " ".join([other["messages"][0]["content"]] * 6)
    return rows


def preferences() -> list[dict[str, Any]]:
    rude = ("몰라요 바빠요.", "직접 찾아보세요.", "그런 것은 안 합니다.")
    return [
        {"prompt": question, "chosen": TOPICS[topic][1], "rejected": rude[number % 3]}
        for number, (question, topic) in enumerate(questions(160, 29))
    ]


def passages(answers: bool) -> list[dict[str, Any]]:
    rows = []
    for number, (question, topic) in enumerate(questions(160, 30)):
        passage = f"{number}번 안내문 {question[:12]}: {TOPICS[topic][1]}"
        row = {"question": question, "answer": TOPICS[topic][1]} if answers else {"anchor": question}
        rows.append(row | {"positives": [passage], "negatives": []})
    return rows


def other_job(bench: Bench, job: str, dataset: str, base: str, family: str = "llama", **blocks: Any) -> dict[str, Any]:
    spec = sft_spec(base, dataset, **{**SHORT, "batch_size": 8, "lr": 1e-3, **blocks.pop("hyperparams", {})})
    spec.pop("evaluation")
    spec["output"] = {"artifact_name": f"tiny-{job.lower().replace('_', '-')}"}
    return {**spec, "job_type": job, "model_family": family, **blocks}


Kind = Callable[[Bench], dict[str, Any]]


def _sft(rows: str, make: Callable[[], list[dict[str, Any]]], template: str | None = None, **hyper: Any) -> Kind:
    def spec(b: Bench) -> dict[str, Any]:
        base = b.base(rows, template) if template else b.chain.base
        return _with_room(sft_spec(base, b.rows(rows, "sft_pair", make()), **{**SHORT, **hyper}))

    return spec


def _with_room(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with room for answers in words that the desk's tokenizer has not seen."""
    return spec | {"evaluation": {**spec["evaluation"], "max_new_tokens": 64}}


def _continued(b: Bench) -> str:
    """A training that goes on from the chain's own, as far as its merged model."""
    cell, ran = b.one.train(sft_spec(b.chain.tuned, b.rows("english", "sft_pair", english()), **SHORT), *TRAINING[:3])
    if ran.failed:
        raise RuntimeError(f"the first continuation: {ran.failed}")
    return cell


KINDS: dict[str, Kind] = {
    "pretrain": lambda b: pretrain_spec(seed=7, **{"max_steps": 30, "save_steps": 30}),
    "sft full": lambda b: sft_spec(b.chain.base, seed=7),
    "sft lora": lambda b: sft_spec(b.chain.base, method="lora", seed=7),
    "sft lora, frozen embeddings": lambda b: sft_spec(
        b.chain.base, method="lora", train_embeddings=False, target_modules=["q_proj", "v_proj"], **SHORT
    ),
    "sft own template": _sft("plain", lambda: chats(160, 31), PLAIN),
    "sft unmarked template": _sft("unmarked", lambda: chats(160, 32), UNMARKED),
    "sft system": _sft("system", with_system),
    "sft several turns": _sft("turns", two_turns, max_seq_len=160),
    "sft english": _sft("english", english, max_steps=60, save_steps=60),
    "sft two languages": _sft("both", lambda: chats(90, 33) + english(90, 34)),
    "sft tools": _sft("tools", calling, TOOLS_TEMPLATE, max_seq_len=256),
    "sft reasoning": _sft("reasoning", reasoning, TOOLS_TEMPLATE),
    "sft weights": _sft("weights", weighted, max_seq_len=160),
    "sft packing": lambda b: sft_spec(b.chain.base, packing=True, max_seq_len=256, **SHORT),
    "sft gentle": lambda b: sft_spec(b.chain.base, lr=1e-4, num_epochs=1, max_steps=None, save_steps=10),
    "sft early stopping": lambda b: sft_spec(
        b.chain.base, early_stopping={"patience": 3}, eval_steps=10, save_steps=10, max_steps=40
    ),
    "sft accumulated": lambda b: sft_spec(
        b.chain.base, batch_size=4, gradient_accumulation_steps=4, warmup_ratio=0.1, weight_decay=0.01, **SHORT
    ),
    "sft overlong dropped": _sft("long", some_long, overlong="drop", max_seq_len=96),
    "continuation": lambda b: _with_room(
        # In fewer steps it learns no word of the other language, and says nothing.
        sft_spec(b.chain.tuned, b.rows("english", "sft_pair", english()), max_steps=60, save_steps=60)
    ),
    "continuation of a continuation": lambda b: _with_room(
        sft_spec(_continued(b), b.rows("system", "sft_pair", with_system()), lr=1e-4, **SHORT)
    ),
    "dpo": lambda b: other_job(
        b,
        "RLHF",
        b.rows("pairs", "rlhf_pair", preferences()),
        b.chain.tuned,
        hyperparams={"lr": 1e-4},
        rlhf={"algorithm": "dpo", "kl_coeff": 0.1, "reward_model_ref": None},
    ),
    "rloo": lambda b: other_job(
        b,
        "RLHF",
        b.rows("pairs", "rlhf_pair", preferences()),
        b.chain.tuned,
        hyperparams={"lr": 1e-4, "max_seq_len": 96},
        rlhf={"kl_coeff": 0.05, "ppo_steps": 4, "max_new_tokens": 16, "reward_model_ref": None, "reward_lr": 1e-3},
    ),
    "embedding": lambda b: other_job(
        b,
        "EMBEDDING",
        b.rows("anchors", "embedding_pair", passages(False)),
        b.encoder(),
        "bert",
        hyperparams={"batch_size": 32},
    ),
    "rag": lambda b: other_job(
        b,
        "RAG_TUNING",
        b.rows("qa", "rag_qa", passages(True)),
        b.chain.base,
        hyperparams={"max_seq_len": 256, "lr": 3e-3},
        rag={"retriever_type": "dense", "retriever_model_ref": b.encoder(), "passages": 2, "retriever_lr": 1e-3},
    ),
}
"""What is trained, by its name."""


@dataclass(frozen=True)
class Line:
    """What came of one kind."""

    kind: str
    seconds: float
    outcome: str
    cried: bool


def train(bench: Bench, kind: str) -> Line:
    """Train one kind to the registry."""
    begun = time.monotonic()
    try:
        ran: Ran = bench.one.train(KINDS[kind](bench))[1]
    except Exception as error:  # noqa: BLE001  whatever stops a clean training is what is looked for
        return Line(kind, time.monotonic() - begun, f"STOPPED: {type(error).__name__}: {error}", True)
    seconds = time.monotonic() - begun
    allowed = ACCURACY | ({"registered_model"} if ran.failed.keys() & ACCURACY else set())
    stopped = {name: text for name, text in ran.failed.items() if name not in allowed}
    if stopped:
        return Line(kind, seconds, "STOPPED: " + "; ".join(f"{name}: {text}" for name, text in stopped.items()), True)
    if "registered_model" in ran.made:
        return Line(kind, seconds, "registered", False)
    return Line(kind, seconds, "withheld by its accuracy alone", False)


def main() -> None:
    """Train the kinds named, or all."""
    chosen = sys.argv[1:] or list(KINDS)
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        sys.exit(f"no such kind: {', '.join(unknown)}. There are: {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "home", OPEN) as one:
        bench, cried = Bench(one, build(one, serve=False)), 0
        for kind in chosen:
            line = train(bench, kind)
            cried += line.cried
            print(f"{line.kind:32} {line.seconds:6.1f} s  {line.outcome}", flush=True)
    print(f"{len(chosen)} clean trainings, {cried} stopped by anything but accuracy")
    sys.exit(1 if cried else 0)


OPEN: dict[str, Any] = {
    **POLICY,
    "gates.RLHF": {"metric": "preference_accuracy", "suite": "test", "at_least": 0.6, "n_at_least": 20},
    "gates.EMBEDDING": {"metric": "recall_at_10", "suite": "test", "at_least": 0.5, "n_at_least": 20},
    "gates.RAG_TUNING": {"metric": "accuracy", "suite": "test", "judge": "exact", "at_least": 0.9, "n_at_least": 20},
}


if __name__ == "__main__":
    main()
