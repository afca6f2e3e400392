"""The adapter and the base that an endpoint serves beside each other, where a research endpoint asks for that."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, BaseModelRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.names import training_key
from resources.backends.serve_command import ADAPTER, ADAPTER_HASH, BASE, BASE_HASH, MOST_RANK
from resources.content import changed_files, content_hash, difference, in_words, listing
from resources.records import Records


class NoAdapter(ValueError):
    """A model that cannot be served as base and adapter; the message has every reason."""


@dataclass(frozen=True)
class ServedAdapter:
    """The folders of an adapter and of its base, with the hashes that were recorded of them."""

    path: str
    content_hash: str
    base_path: str
    base_hash: str

    def runtime(self, stored: Callable[[str], str]) -> dict[str, Any]:
        """What a server is told of them; `stored` writes a path down by the root that it lies under."""
        found = {ADAPTER: stored(self.path), ADAPTER_HASH: self.content_hash}
        return {**found, BASE: stored(self.base_path), BASE_HASH: self.base_hash}


def adapter_for(spec: DeploymentSpec, model: RegisteredModelRecord, records: Records) -> ServedAdapter | None:
    """What a spec with `load_mode: base+adapter` wants served of a model; None for any other. Raises NoAdapter."""
    if spec.load_mode == "merged":
        return None
    if spec.runtime.backend != "local":
        raise NoAdapter(
            f"base+adapter is served by processes of this machine, not by {spec.runtime.backend}: write "
            "runtime.backend: local, or load_mode: merged"
        )
    cell = training_key(model.dataset, model.recipe)
    adapter, merged = records.find(AdapterRecord, cell), records.find(MergedModelRecord, cell)
    plan = records.find(PlanRecord, cell)
    if model.scheme:
        raise NoAdapter(f"{model.ref} is a quantized form, which was made of the merged model: write load_mode: merged")
    if adapter is None or merged is None or plan is None or merged.content_hash != model.content_hash:
        raise NoAdapter(f"the adapter that {model.ref} was merged of is not on record: {cell} was trained again since")
    if adapter.method == "full" or plan.base is None:
        raise NoAdapter(f"{model.ref} was trained in full and has no adapter: write load_mode: merged")
    reasons = list(_faults(adapter, plan.base))
    if reasons:
        raise NoAdapter("; ".join(reasons))
    # What is on record of an adapter is the hash of its tensors alone; its configuration decides as much.
    return ServedAdapter(adapter.path, content_hash(Path(adapter.path)), plan.base.path, plan.base.content_hash)


def _faults(adapter: AdapterRecord, base: BaseModelRecord) -> Iterator[str]:
    if (changed := difference(Path(base.path), base.content_hash, base.files)) is not None:
        yield f"{changed} what the training began with: put the base {base.ref} back"
    folder = Path(adapter.path)
    if not folder.is_dir():
        yield f"the folder of the adapter is gone: {folder}"
        return
    if not adapter.files:
        yield "the adapter is of an earlier release, which kept no hashes of its files: train it again, or load merged"
        return
    if others := changed_files(listing(folder), adapter.files):
        yield f"{in_words(others)} what was trained: look into {folder}"
    file = folder / "adapter_config.json"
    if not file.is_file():
        yield f"{folder} holds no adapter_config.json: it is no adapter of PEFT"
    else:
        yield from config_faults(json.loads(file.read_text(encoding="utf-8")))


def config_faults(config: dict[str, Any]) -> Iterator[str]:
    """Why vLLM would not serve an adapter with this `adapter_config.json` (its `PEFTHelper` refuses these)."""
    if config.get("peft_type") != "LORA":
        yield f"vLLM serves LoRA adapters, not {config.get('peft_type')}"
    if config.get("modules_to_save"):
        names = ", ".join(config["modules_to_save"])
        yield f"the adapter holds whole modules ({names}), which vLLM does not serve beside a base: load merged"
    if config.get("use_dora"):
        yield "vLLM serves no DoRA beside a base: load merged"
    if config.get("bias", "none") != "none":
        yield f"the adapter trained biases ({config['bias']}), which vLLM does not serve beside a base: load merged"
    rank = max([int(config.get("r") or 0), *map(int, (config.get("rank_pattern") or {}).values())])
    if not 0 < rank <= MOST_RANK:
        yield f"vLLM serves adapters of rank 1 to {MOST_RANK}, and this one has {rank}"
