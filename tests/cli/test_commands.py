"""What the command says and returns, without a platform behind it."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.records.datasets import SplitsRecord
from resources.catalog import Catalog

ROW = {"messages": [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    common.wiring.cache_clear()
    yield tmp_path
    common.wiring.cache_clear()


@pytest.fixture
def data(home) -> Path:
    path = home / "desk.jsonl"
    path.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def llmops(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one call, with the errors as the command prints them."""
    result = None
    runner = CliRunner()

    def call() -> None:
        nonlocal result
        result = runner.invoke(app, [str(a) for a in arguments], standalone_mode=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    with common.err.capture() as errors:
        code = common.guard(call)
    return code or result.exit_code, result.stdout, result.stderr + errors.get()


def commands(group: typer.Typer = app, prefix: str = "") -> list[str]:
    found = []
    click_group = typer.main.get_command(group)
    for name, command in click_group.commands.items():
        found += [f"{name} {inner}" for inner in command.commands] if getattr(command, "commands", None) else [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_with_an_example(home, command):
    code, out, _ = llmops(*command.split(), "--help")
    assert code == 0
    assert re.search(r"Example: .*llmops", " ".join(out.split()))


def test_a_registered_version_is_listed_and_shown(home, data):
    assert llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair", "--owner", "team:desk")[0] == 0
    code, out, _ = llmops("dataset", "list", "--json")
    assert code == 0
    assert [(row["dataset"], row["type"], row["splits"]) for row in json.loads(out)] == [("desk@v1", "sft_pair", None)]
    shown = json.loads(llmops("dataset", "show", "desk@v1", "--json")[1])
    assert shown["registration"]["owner"] == "team:desk"
    assert shown["splits"] is None
    copied = home / "home" / "artifacts" / "uploads" / "desk@v1" / "desk.jsonl"
    assert copied.read_bytes() == data.read_bytes()


def test_other_content_under_a_known_version_is_refused_and_nothing_is_lost(home, data):
    llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")
    before = data.read_bytes()
    data.write_bytes(before * 2)
    code, _, errors = llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")
    assert code == 1
    assert "A version never changes" in errors
    assert (home / "home" / "artifacts" / "uploads" / "desk@v1" / "desk.jsonl").read_bytes() == before
    assert [p.name for p in (home / "home" / "artifacts" / "uploads").iterdir()] == ["desk@v1"]


def test_the_same_files_again_are_accepted(home, data):
    llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")
    code, out, _ = llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")
    assert code == 0
    assert "registered already" in out


@pytest.mark.parametrize("version", ["desk|x@v1", "desk@v|1", "desk", "@v1", "../desk@v1", "desk@v1@v2"])
def test_a_name_that_cannot_be_a_partition_is_refused(home, data, version):
    code, _, errors = llmops("dataset", "add", version, data, "--type", "sft_pair")
    assert code == 1
    assert "NAME@VERSION" in errors
    assert Catalog(common.wiring().settings.catalog).datasets() == []


def test_all_that_is_wrong_with_a_registration_is_told_at_once(home, data):
    code, _, errors = llmops("dataset", "add", "desk@v1", data, "--type", "sft_pear", "--owner", " ")
    assert code == 1
    assert "type:" in errors
    assert "owner:" in errors


def test_a_missing_file_is_named(home):
    code, _, errors = llmops("dataset", "add", "desk@v1", "nowhere.jsonl", "--type", "sft_pair")
    assert code == 1
    assert "nowhere.jsonl" in errors


def test_every_fault_of_a_spec_is_told_with_its_field(home):
    spec = home / "job.yaml"
    spec.write_text("job_type: SFT\nmodel_family: lama\ndataset_ref: desk@v1\nmethod: lora\nhyperparams: {lr: 3}\n")
    code, _, errors = llmops("spec", "validate", spec)
    assert code == 1
    for field in ("hyperparams.lr", "hyperparams.batch_size", "hyperparams.num_epochs", "base_model_ref", "output"):
        assert field in errors, field
    code, out, _ = llmops("spec", "validate", spec, "--json")
    assert code == 1
    (report,) = json.loads(out)
    assert report["valid"] is False
    assert {fault["line"] for fault in report["faults"] if fault["field"] == "hyperparams.lr"} == {5}


def test_a_training_on_an_unknown_dataset_is_refused(home):
    examples = Path(__file__).parents[2] / "examples" / "specs"
    code, _, errors = llmops("train", examples / "sft-lora.yaml")
    assert code == 1
    assert "there is no dataset 'support-desk'" in errors


def test_a_training_on_a_dataset_of_another_type_is_refused(home, data):
    examples = Path(__file__).parents[2] / "examples" / "specs"
    llmops("dataset", "add", "support-desk@v1", data, "--type", "eval_suite")
    code, _, errors = llmops("train", examples / "sft-lora.yaml")
    assert code == 1
    assert "SFT trains on sft_pair" in errors


def test_a_training_is_accepted_once_its_recipe_is_content_addressed(home, data):
    examples = Path(__file__).parents[2] / "examples" / "specs"
    llmops("dataset", "add", "support-desk@v1", data, "--type", "sft_pair")
    first = json.loads(llmops("train", examples / "sft-lora.yaml", "--json")[1])
    second = json.loads(llmops("train", examples / "sft-lora.json", "--json")[1])
    assert first == second
    assert re.fullmatch(r"support-desk@v1\|support-qwen-[0-9a-f]{8}", first["partition"])
    assert len(common.wiring().catalog.recipes()) == 1


def small_qwen(folder):
    """A whole Qwen3 of random weights, with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.training.job_data import make_base

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    whole.save_pretrained(folder)
    make_base("qwen", folder, folder)


def test_a_base_model_is_verified_then_approved(home):
    folder = home / "model"
    small_qwen(folder)
    code, _, errors = llmops("model", "register", f"hf:{folder}", "--family", "mistral")
    assert code == 1
    assert "MistralForCausalLM" in errors
    assert llmops("model", "register", f"hf:{folder}", "--family", "qwen")[0] == 0
    assert common.wiring().catalog.base_model(f"hf:{folder}").state == "draft"
    assert llmops("model", "approve", f"hf:{folder}")[0] == 0
    assert common.wiring().catalog.base_model(f"hf:{folder}").state == "approved"


def test_what_is_not_there_is_told(home):
    for arguments in (("endpoint", "show", "desk"), ("ab", "report", "test"), ("dataset", "show", "desk@v1")):
        code, _, errors = llmops(*arguments)
        assert code == 1, arguments
        assert "there is no" in errors


def test_chatting_without_a_platform_says_how_to_start_one(home, monkeypatch):
    monkeypatch.setenv("LLMOPS_GATEWAY_PORT", "1")
    common.wiring.cache_clear()
    code, _, errors = llmops("chat", "desk", "안녕하세요")
    assert code == 5
    assert "llmops up" in errors


def test_a_version_that_is_split_needs_nothing(home, data):
    llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")
    empty = dict.fromkeys(("train", "validation", "test"), 0)
    common.wiring().records.save(
        "desk@v1",
        SplitsRecord(
            dataset="desk@v1",
            type="sft_pair",
            manifests={},
            rows=empty,
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash="h",
        ),
    )
    assert "nothing to do" in llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")[1]
