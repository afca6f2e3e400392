"""A served model that sees or says other tokens than its evaluation is caught, whatever the text looks like."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from images.ask import generate
from llmops_assets.records.jobs import GenerateJob
from llmops_assets.serving.parity import Difference, difference, differences, no_rounding, spread, summary
from resources.catalog import Catalog
from resources.model_server import Answer, ModelServers
from tests.serving.conftest import CHATML, catalog, models, servers  # noqa: F401  fixtures

QUESTIONS = ["통행료는 얼마인가요?", "hi", "하이패스 단말기를 잃어버렸어요.", "휴게소는 어디에 있나요?"]
RUNTIME = {"device": "cpu", "dtype": "float32", "max_input_tokens": 400, "max_output_tokens": 40}


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHATML.replace("assistant\n", "assistant "))


def second_bos(folder: Path) -> None:
    # The template writes a token that the one of the training did not.
    (folder / "chat_template.jinja").write_text("{{ '<|im_start|>' }}" + CHATML)


def other_stop(folder: Path) -> None:
    path = folder / "generation_config.json"
    config = json.loads(path.read_text())
    # What the model says often ends its answers from now on.
    path.write_text(json.dumps(config | {"eos_token_id": STOP["id"]}))


STOP: dict[str, int] = {}


@pytest.fixture(scope="module")
def evaluated(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict]:  # noqa: F811
    """Rows of an answers file, made by the evaluation's own worker."""
    root = tmp_path_factory.mktemp("evaluated")
    asked = [{"id": str(n), "messages": [{"role": "user", "content": q}]} for n, q in enumerate(QUESTIONS)]
    prompts, output = root / "prompts.jsonl", root / "answers.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in asked))
    job = {"model_dir": str(models["old"]), "prompts_file": str(prompts), "output_file": str(output)}
    generate.run(GenerateJob.model_validate(job | {"max_new_tokens": 24}))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    STOP["id"] = rows[0]["token_ids"][2]
    return [row | {"prompt": q, "got": row["text"]} for row, q in zip(rows, QUESTIONS, strict=True)]


def ask(servers: ModelServers, folder: Path, rows: list[dict]) -> list[Difference]:  # noqa: F811
    with servers.probe_server("probe", "desk@1", str(folder), "transformers", RUNTIME) as backend:
        served = [
            servers.complete(backend, [{"role": "user", "content": row["prompt"]}], max_tokens=24, token_ids=True)
            for row in rows
        ]
        assert all(answer.prompt_ids and answer.token_ids for answer in served), "the server tells its tokens"
    return differences(rows, served)


def test_a_trial_server_repeats_the_evaluation_and_leaves_nothing_behind(
    models: dict[str, Path],  # noqa: F811
    servers: ModelServers,  # noqa: F811
    catalog: Catalog,  # noqa: F811
    evaluated: list[dict],
):
    assert ask(servers, models["old"], evaluated) == []
    assert catalog.backends() == []


@pytest.mark.parametrize(("change", "kind"), [(other_template, "template"), (second_bos, "bos"), (other_stop, "stop")])
def test_a_server_with_another_template_bos_or_stop_token_is_caught(
    models: dict[str, Path],  # noqa: F811
    servers: ModelServers,  # noqa: F811
    evaluated: list[dict],
    tmp_path: Path,
    change: Callable[[Path], None],
    kind: str,
):
    folder = tmp_path / "changed"
    shutil.copytree(models["old"], folder)
    change(folder)
    found = ask(servers, folder, evaluated)
    assert kind in {one.kind for one in found}
    assert {one.kind for one in found} <= {kind}
    if kind != "stop":
        assert len(found) == len(QUESTIONS)
    assert kind in summary(len(QUESTIONS), found)


ROW = {"prompt": "q", "got": "a b", "prompt_ids": [1, 5, 6, 7], "token_ids": [8, 9, 2], "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("prompt_ids", "token_ids", "reason", "kind"),
    [
        ((1, 5, 6, 7), (8, 9, 2), "stop", None),
        ((1, 5, 6, 7), (8, 9), "stop", None),
        ((1, 5, 6, 7), (8, 9), "length", "length"),
        ((1, 5, 6, 7), (8,), "stop", "stop"),
        ((1, 5, 6, 7), (8, 9, 2, 4), "stop", "stop"),
        ((1, 5, 6, 7), (8, 4, 2), "stop", "answer"),
        ((5, 6, 7), (8, 9, 2), "stop", "bos"),
        ((1, 1, 5, 6, 7), (8, 9, 2), "stop", "bos"),
        ((6, 7), (8, 9, 2), "stop", "prompt cut"),
        ((1, 5, 3, 7), (8, 9, 2), "stop", "template"),
        (None, None, "stop", "answer"),
    ],
)
def test_differences_are_told_apart(prompt_ids, token_ids, reason, kind):
    found = difference(ROW, Answer("other", 3, 0.1, reason, prompt_ids, token_ids))
    assert (found.kind if found else None) == kind


def test_an_engine_that_tells_no_tokens_is_compared_by_its_text():
    assert difference(ROW, Answer(" a b\n", 3, 0.1, "stop")) is None


def diverging(*at: int, kind: str = "answer") -> list[Difference]:
    return [Difference("q", kind, "a", "b", place) for place in at]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "found", "sure"),
    [
        (8, diverging(), False),
        (8, diverging(40, 55, 90, 12, 33, 71, 20, 18), False),
        (8, diverging(1, 3, 60), False),
        (8, diverging(0, 1, 2, 3), False),
        (8, diverging(0, 1, 2, 3, 7), True),
        (2, diverging(0, 1), False),
        (8, diverging(30, 40, 50, 60, 70, kind="stop"), True),
        (8, diverging(30, kind="stop"), False),
        (8, diverging(5, kind="length"), True),
        (8, diverging(0, kind="bos"), True),
    ],
)
def test_what_another_engine_rounds_otherwise_is_told_from_what_it_does_otherwise(asked, found, sure):
    assert no_rounding(asked, found) is sure


def test_a_difference_says_how_much_was_the_same_before_it():
    assert difference(ROW, Answer("other", 3, 0.1, "stop", (1, 5, 6, 7), (8, 4, 2))).at == 1  # type: ignore[union-attr]
    assert difference(ROW, Answer("a c", 3, 0.1, "stop")).at == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("tokens", "reasons", "limit", "cut"),
    [
        ((10, 20, 30, 40), "ssss", None, 0.0),
        ((10, 20, 30, 40), "ssss", 30, 0.25),
        ((10, 20, 30, 40), "ssss", 3, 1.0),
        ((10, 96, 96, 96), "slll", 80, 0.0),
        ((96, 96), "ll", 80, 0.0),
        ((), "", 3, 0.0),
    ],
)
def test_answers_that_an_endpoint_would_cut_are_counted(tokens, reasons, limit, cut):
    why = {"s": "stop", "l": "length"}
    rows = [{"tokens": n, "finish_reason": why[r]} for n, r in zip(tokens, reasons, strict=True)]
    assert spread(rows, 8, limit)[1] == cut
