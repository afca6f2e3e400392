"""Models with fewer bits: made in an environment of their own, loaded in ours, judged against the original."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from images.ask import generate
from llmops_assets.evaluation.metrics import Estimate
from llmops_assets.records.jobs import CompressJob, GenerateJob
from llmops_assets.registry import compression
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.serving_rules import Compression
from llmops_assets.specs.settings import Settings
from resources.content import content_hash
from resources.engines import EngineError, Engines
from tests.serving.conftest import models  # noqa: F401  fixture

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engines() -> Engines:
    """The engine `compression`, installed when it is not there (about a minute, once)."""
    found = Engines(REPOSITORY / Settings().engines)
    found.install("compression")
    return found


@pytest.fixture(scope="module")
def made(
    models: dict[str, Path],  # noqa: F811
    engines: Engines,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict]:
    """The results by scheme; `folder` is where the model lies."""
    root = tmp_path_factory.mktemp("compressed")
    rng = random.Random(0)
    rows = compression.write_rows(root / "rows.jsonl", [[rng.randrange(3, 300) for _ in range(48)] for _ in range(16)])
    jobs = []
    for scheme in ("w8a8", "w4a16", "fp8", "int8"):
        job = {"model_dir": str(models["old"]), "output": str(root / scheme), "scheme": scheme}
        job |= {"calibration": str(rows), "probes": str(rows), "result": str(root / f"{scheme}.result")}
        jobs.append(root / f"{scheme}.json")
        jobs[-1].write_text(json.dumps(job))
    # One process for all: importing llm-compressor costs more than compressing a tiny model.
    command = [str(engines.python("compression")), "-W", "ignore", "-m", "images.compress", *map(str, jobs)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        job.stem: json.loads(job.with_suffix(".result").read_text()) | {"folder": job.with_suffix("")} for job in jobs
    }


def test_every_scheme_is_smaller_and_near_the_original(made: dict[str, dict], models: dict[str, Path]):  # noqa: F811
    original = compression.size_of(models["old"])
    for scheme, result in made.items():
        assert compression.size_of(result["folder"]) < original, scheme
        assert content_hash(result["folder"]) != content_hash(models["old"])
        assert 0 <= result["kl"] < 3 and 0.2 < result["top1"] <= 1
    # Four bits lose more than eight, and activations lose something too.
    assert made["int8"]["kl"] < made["w8a8"]["kl"] < made["w4a16"]["kl"]
    assert made["w4a16"]["group_size"] == 32


def test_what_was_compressed_answers_in_our_own_environment(made: dict[str, dict], tmp_path: Path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"id": "1", "messages": [{"role": "user", "content": "통행료는 얼마인가요?"}]}) + "\n"
    )
    for scheme, result in made.items():
        job = {"model_dir": str(result["folder"]), "prompts_file": str(prompts), "max_new_tokens": 4}
        told = generate.run(GenerateJob.model_validate(job | {"output_file": str(tmp_path / f"{scheme}.jsonl")}))
        assert told["tokens"] > 0, scheme
        assert json.loads((result["folder"] / "config.json").read_text())["llmops_family_version"] == "3.1"


def test_what_needs_a_gpu_says_so(models: dict[str, Path], engines: Engines, tmp_path: Path):  # noqa: F811
    rows = compression.write_rows(tmp_path / "rows.jsonl", [[5, 6, 7]])
    job = CompressJob(
        model_dir=str(models["old"]),
        output=str(tmp_path / "awq"),
        scheme="awq",
        calibration=str(rows),
        probes=str(rows),
    )
    with pytest.raises(EngineError, match="awq needs a GPU"):
        engines.run("compression", "images.compress", job, work_dir=tmp_path)
    assert not (tmp_path / "awq").exists()


def rows_of(right: list[bool]) -> list[dict]:
    return [{"id": str(n), "suite": "test", "correct": r} for n, r in enumerate(right)]


def test_what_was_lost_is_paired_by_item():
    before, after = rows_of([True] * 190 + [False] * 10), rows_of([True] * 180 + [False] * 20)
    lost = compression.difference("accuracy", "test", after, before)
    assert lost.value == pytest.approx(-0.05) and lost.low < -0.05 < lost.high < 0
    test = compression.versus("test", after, before)
    assert (test["only_compressed"], test["only_original"]) == (0, 10) and test["p"] < 0.01
    with pytest.raises(ValueError, match="materialise `evaluation` again"):
        compression.difference("accuracy", "test", after[:-1], before)


def test_a_perplexity_that_grew_is_a_loss():
    documents = [{"id": str(n), "suite": "test", "nll": 20.0 + n, "tokens": 10} for n in range(30)]
    worse = [row | {"nll": row["nll"] + 0.5} for row in documents]
    lost = compression.difference("perplexity", "test", worse, documents)
    assert lost.value == pytest.approx(1 - 2.718281828 ** (0.5 / 10), abs=1e-6)


@pytest.mark.parametrize(
    ("value", "top1", "passed", "told"),
    [
        (-0.01, 0.95, True, "accuracy -0.010"),
        (0.01, 0.95, True, "+0.010"),
        (-0.03, 0.95, False, "lost more than 0.02"),
        (-0.01, 0.85, False, "fewer than 0.9"),
        (float("nan"), 0.95, False, "lost more"),
    ],
)
def test_the_policy_says_how_much_may_be_lost(value, top1, passed, told):
    gate = load_policy().gates["SFT"]
    verdict = compression.judge("w8a8", gate, Estimate(value, None, None, 205), top1, 0.01, Compression())
    assert verdict.passed == passed and told in verdict.text


def test_an_engine_that_is_not_there_says_how_to_get_it(tmp_path: Path):
    engines = Engines(tmp_path)
    with pytest.raises(EngineError, match="make engines ENGINE=compression"):
        engines.python("compression")
    with pytest.raises(EngineError, match="there is no engine 'other'"):
        engines.install("other")
    assert {"compression", "vllm"} <= set(engines.names())


def test_an_engine_is_made_anew_when_its_requirements_change_or_it_was_cut_off(tmp_path: Path):
    described = tmp_path / "described" / "small"
    described.mkdir(parents=True)
    (described / "requirements.txt").write_text("# nothing but Python\n")
    engines = Engines(tmp_path / "engines", tmp_path / "described")
    said: list[str] = []
    assert engines.install("small", said.append) and engines.ready("small")
    assert not engines.install("small", said.append)
    (described / "requirements.txt").write_text("# nothing but Python, said otherwise\n")
    assert not engines.ready("small")
    (described / "requirements.txt").write_text("no-such-package @ file:///nowhere\n")
    with pytest.raises(EngineError, match="could not be made"):
        engines.install("small", said.append)
    assert not engines.ready("small")
