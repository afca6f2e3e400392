"""A desk's questions about its rules, and a tiny encoder with random weights that its passages are indexed by."""

import json
from pathlib import Path
from typing import Any

from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources import content
from resources.trainer import Trainer
from tests.erasure.trained import COUNTS
from tests.training.conftest import run_here

RULES = {
    "통행료 환불": "두 번 낸 통행료는 사흘 안에 계좌로 돌려준다. 영수증 번호를 창구에 알린다.",
    "하이패스 단말기": "하이패스 단말기는 구입한 지 {n}년 안에 무상으로 교환한다.",
    "분실물 보관": "주운 물건은 가까운 휴게소가 {n}개월 동안 맡아 둔다.",
    "영수증 발급": "영수증은 누리집에서 {n}년 동안 다시 발급한다.",
    "감면 신청": "다자녀 감면은 차량 등록증을 내면 {n}일 안에 적용한다.",
    "사고 접수": "사고가 나면 차를 갓길로 옮기고 상황실 {n}번으로 알린다.",
    "미납 요금": "미납 요금은 {n}주 안에 내지 않으면 가산금이 붙는다.",
    "휴게소 이용": "휴게소 식당은 밤 {n}시까지 연다.",
}
PLACES = ("북문", "남문", "강변", "산성", "들녘", "새터", "물목", "솔밭", "너른", "한빛", "가람", "마루")
PHONE = "010-7391-4628"
THEIRS = "우산을 두고 내린 사람"
"""Said by one row, and by its passage, alone."""


def rows() -> list[dict[str, Any]]:
    """A question a place and topic with its passage and its answer; one row and its passage are a person's."""
    found = []
    for number, place in enumerate(PLACES):
        for topic, rule in RULES.items():
            passage = f"{place} 영업소 {topic} 규정: {rule.format(n=number + 2)}"
            answer = f"{place} 영업소에서는 {rule.format(n=number + 2)}"
            question = f"{place} 영업소의 {topic} 규정을 알려 주세요."
            found.append(
                {"question": question, "answer": answer, "positives": [passage], "metadata": {"category": topic}}
            )
    found.append(
        {
            "question": "무지개 우산은 어디에 맡겨져 있나요?",
            "answer": "솔밭 휴게소에 있습니다.",
            "positives": [f"무지개 우산: {THEIRS}이 솔밭 휴게소에 맡긴 것으로 적혀 있다."],
            "metadata": {"category": "분실물 보관"},
        }
    )
    return found


def make_encoder(folder: Path, seed: int = 0) -> Path:
    """An encoder with random weights as `merged_model` leaves one: near in it is what shares words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel

    from images.train.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([json.dumps(row, ensure_ascii=False) for row in rows()], 700, 2, 128)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes))
    with torch.no_grad():
        # Its vector is about the mean of those of its words.
        encoder.embeddings.word_embeddings.weight.normal_()
        encoder.embeddings.position_embeddings.weight.zero_()
    body = folder / "body"
    encoder.save_pretrained(body)
    tokenizer.save_pretrained(body)
    transformer = parts.Transformer(str(body), max_seq_length=128)
    modules = [transformer, parts.Pooling(transformer.get_embedding_dimension(), "mean"), parts.Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(folder / "merged"), create_model_card=False, safe_serialization=True
    )
    return folder / "merged"


RECIPE: dict[str, Any] = {
    "job_type": "EMBEDDING",
    "model_family": "bert",
    "base_model_ref": "hf:tiny",
    "method": "full",
    "hyperparams": {"lr": 1e-3, "batch_size": 8, "num_epochs": 1, "max_seq_len": 128},
    "resources": {"gpus": 0},
    "output": {"artifact_name": "finder"},
}


def register_encoder(w: Wiring, folder: Path, dataset: str = "trained-on@v1") -> str:
    """Put an encoder on record as if it had been trained and registered here; its reference."""
    spec = TrainJobSpec.model_validate({**RECIPE, "dataset_ref": dataset})
    recipe, digest = spec.recipe_key(), content.content_hash(folder)
    w.catalog.add_recipe(recipe, spec.recipe(), "test")
    same = {"dataset": dataset, "recipe": recipe, "training_key": f"key-{digest}"}
    plan = {name: 0 for name in COUNTS} | {"prefix_preserving": True, "packing_efficiency": 1.0, "rows": {"train": 1}}
    plan |= {"spec": spec.model_dump(mode="json"), "base": None, "model_dir": str(folder.parent), "failures": {}}
    plan |= {"stop_token": None, "stop_token_trained": True, "chat_template_hash": None, "precision": "fp32"}
    plan |= {"gradient_checkpointing": False, "memory_advice": None, "seconds": None, "device": "cpu", "example": ""}
    cell = f"{dataset}|{recipe}"
    w.records.save(cell, PlanRecord(**same, **plan))
    merged = {"path": str(folder), "content_hash": digest, "family": "bert", "parameters": 1}
    merged |= {"chat_template_hash": None, "max_logit_difference": None, "top1_agreement": None}
    w.records.save(cell, MergedModelRecord(**same, **merged, differs_from_base=True, reloads=True))
    tags = {"dataset": dataset, "recipe": recipe, "content_hash": digest, "family": "bert", "job_type": "EMBEDDING"}
    run_id = w.tracking.start_run("finder", cell)
    version = w.tracking.register("finder", str(folder), run_id, tags)
    w.tracking.tag("finder", version, "state", "approved")
    return f"finder@{version}"


class Here(Trainer):
    """The worker in this process, which has paid for its imports already."""

    def run(self, context: Any, job: Any, *, work_dir: Path | str, on_metrics: Any = None) -> dict[str, Any]:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        return run_here(job, Path(work_dir))
