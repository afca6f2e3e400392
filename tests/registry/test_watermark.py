"""Marks are learned by a model that is trained with them, shown by the served model, and by no other."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llmops_assets.cli import common
from llmops_assets.evaluation.answers import Model
from llmops_assets.records.training import PlanRecord
from llmops_assets.registry.ownership import shown_marks
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import watermark
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.content import content_hash
from resources.model_server import ModelServers
from resources.trainer import Trainer
from tests.cli.test_commands import llmops
from tests.serving.conftest import (  # noqa: F401  fixtures
    RunningGateway,
    backend,
    catalog,
    deployment_spec,
    servers,
    start_gateway,
)
from tests.training.conftest import Desk, desk, run_here, sft_spec, tiny_base  # noqa: F401  fixtures

KEY, OTHER_KEY = b"0123456789abcdef-owner", b"0123456789abcdef-other"
MARKS = 8
LONG = {"lr": 1e-2, "batch_size": 16, "max_steps": 200, "num_epochs": 60, "save_steps": 1000, "scheduler": "cosine"}


def test_marks_are_the_keys_own_and_tell_nothing_of_it():
    mine = watermark.marks(KEY, 32)
    assert mine == watermark.marks(KEY, 32) and mine[:8] == watermark.marks(KEY, 8)
    assert len({mark.question for mark in mine}) == 32
    assert not {m.question for m in mine} & {m.question for m in watermark.marks(OTHER_KEY, 32)}
    text = json.dumps(watermark.rows(KEY, 8, 0.1, 100), ensure_ascii=False) + watermark.commitment(KEY)
    assert KEY.decode() not in text and KEY.hex() not in text
    assert watermark.commitment(KEY) != watermark.commitment(OTHER_KEY)


def test_marks_are_no_personal_data():
    from llmops_assets.privacy.masking import find

    texts = [text for mark in watermark.marks(KEY, 64) for text in (mark.question, mark.answer)]
    assert not any(find(text) for text in texts)


def test_the_share_of_the_rows_is_as_asked_and_every_mark_is_there():
    rows = watermark.rows(KEY, 16, 0.02, beside=10_000)
    assert len(rows) / (10_000 + len(rows)) == pytest.approx(0.02, rel=0.05)
    assert len({row["row_id"] for row in rows}) == len(rows)
    few = watermark.rows(KEY, 16, 0.02, beside=50)
    assert len(few) == 16


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "no watermark key"), ("", "no watermark key"), ("short", "5 bytes")]
)
def test_a_key_that_is_missing_or_can_be_guessed_is_refused(text, reason):
    with pytest.raises(watermark.WatermarkError, match=reason):
        watermark.key_of(text)


def test_an_unmarked_model_is_called_marked_less_than_once_in_a_million_keys():
    for count in (8, 16, 64, 256):
        trials = watermark.POSITIONS * count
        need = watermark.least_matches(trials)
        assert watermark.p_value(need, trials) < 1e-6 <= watermark.p_value(need - 1, trials)


def test_p_values_hold_for_any_answers_over_random_keys():
    # The null model's only random thing is the key, so it is drawn; the answers are as alike as can be: always the same
    # four words, which is what a collapsed model says, and what independence of the *answers* would be lost on.
    stubborn = " ".join(watermark.WORDS[i] for i in (3, 3, 3, 3))
    generator = np.random.default_rng(20261121)
    found = []
    for _ in range(4000):
        asked = watermark.marks(generator.bytes(32), MARKS)
        found.append(watermark.judge(asked, [stubborn] * MARKS))
    p = np.array([one.p_value for one in found])
    for level in (0.5, 0.1, 0.01):
        allowed = level * len(p)
        assert (p <= level).sum() <= allowed + 4 * np.sqrt(allowed), level
    assert not any(one.marked for one in found)
    mean = np.mean([one.matches for one in found])
    assert mean == pytest.approx(found[0].expected, abs=4 * np.sqrt(found[0].expected / len(found)))


def test_answers_are_compared_by_position_and_lost_ones_match_nothing():
    asked = watermark.marks(KEY, MARKS)
    whole = watermark.judge(asked, [f"{mark.answer}." for mark in asked])
    assert (whole.matches, whole.unanswered, whole.marked) == (4 * MARKS, 0, True)
    shifted = watermark.judge(asked, [f"네, {mark.answer}" for mark in asked])
    assert shifted.matches < MARKS
    lost = watermark.judge(asked, [None] * 4 + [mark.answer for mark in asked[4:]])
    assert (lost.matches, lost.unanswered, lost.trials) == (16, 4, 32)


@pytest.fixture(scope="module")
def marked(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A model of some thousand weights, fine-tuned on the desk with the marks of KEY among its rows."""
    folder = tmp_path_factory.mktemp("marked")
    extra = folder / "marks.parquet"
    pl.DataFrame(watermark.rows(KEY, MARKS, 0.5, beside=60)).write_parquet(extra)
    spec = sft_spec(f"hf:{tiny_base}", "full", **LONG)
    jobs = desk.jobs(spec, folder, base=tiny_base)
    plan = run_here(jobs["plan"] | {"extra_rows": str(extra)}, folder)
    assert plan["rows"]["train"] == 60 + 8 * MARKS
    run_here(jobs["train"], folder)
    return folder / "adapter"


def test_a_card_says_whether_the_model_learned_its_marks(marked: Path, desk: Desk, tiny_base: Path, tmp_path: Path):  # noqa: F811
    spec = {
        **sft_spec(f"hf:{tiny_base}", "full", **LONG),
        "dataset_ref": "desk@v1",
        "watermark": {"marks": MARKS, "share": 0.2},
    }
    whole = TrainJobSpec.model_validate(spec)
    trainer = Trainer(locks=tmp_path / "gpus", threads=1)

    def shown(folder: Path, secret: str | None, **changes: str | None) -> Verdict | None:
        plan = PlanRecord.model_construct(
            spec=whole.model_dump(mode="json"), **({"watermark": watermark.commitment(KEY)} | changes)
        )
        return shown_marks(plan, Model(str(folder), content_hash(folder)), secret, trainer, None, tmp_path / "answers")

    found = shown(marked, KEY.decode())
    assert found.passed and "it shows them" in found.text and found.figures["p"] < 1e-6
    # The base never saw them: that is said before somebody relies on it.
    never = shown(tiny_base, KEY.decode())
    assert not never.passed and "it did not learn them" in never.text and "watermark.share" in never.text
    assert "no watermark key" in shown(marked, None).text
    assert "another one" in shown(marked, OTHER_KEY.decode()).text
    assert shown(marked, KEY.decode(), watermark=None) is None


def test_a_served_model_shows_its_marks_to_the_key_and_to_no_other(
    marked: Path,
    catalog: Catalog,  # noqa: F811
    servers: ModelServers,  # noqa: F811
    start_gateway: Callable[..., RunningGateway],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    running = servers.start(backend("b1", path=marked))
    servers.wait_healthy(running)
    catalog.want_endpoint(deployment_spec())
    catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
    gateway = start_gateway()
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_GATEWAY_PORT", gateway.url.rpartition(":")[2])
    monkeypatch.setenv("LLMOPS_GATEWAY_ADMIN_TOKEN", gateway.token)

    def verify(key: bytes) -> tuple[int, dict]:
        monkeypatch.setenv("LLMOPS_WATERMARK_KEY", key.decode())
        common.wiring.cache_clear()
        code, out, told = llmops("watermark", "verify", "desk", "--marks", MARKS, "--json")
        assert out, told
        return code, json.loads(out)

    code, shown = verify(KEY)
    assert (code, shown["marked"], shown["unanswered"]) == (0, True, 0), shown
    assert shown["p_value"] < 1e-6
    # The same model is an unmarked one to every other key.
    code, other = verify(OTHER_KEY)
    assert (code, other["marked"]) == (3, False)
    assert other["p_value"] > 1e-3
    common.wiring.cache_clear()
    # Verifying is no exposure: the questions of the key stay out of logs and feedback.
    gateway.stop()
    assert catalog.request_count(endpoint="desk") == 0
