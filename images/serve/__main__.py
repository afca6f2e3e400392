"""Serves one model over the OpenAI protocol: the same command in a child process and in the serve image."""

import argparse
import os
import sys
from pathlib import Path

from images.serve import engines
from images.serve.no_control_tokens import MODEL_FOLDER


def main(arguments: list[str] | None = None) -> None:
    """Become a server of one model, by the engine that is asked for."""
    given = sys.argv[1:] if arguments is None else arguments
    if "retriever" in given[1:] and given[given.index("retriever") - 1] == "--engine":
        # No model is served, and so none of what follows is asked for.
        from images.serve import retriever

        retriever.main(given)
        return
    parser = argparse.ArgumentParser(prog="python -m images.serve", description=__doc__)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--model", required=True, help="model folder: safetensors, tokenizer, chat template")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cpu", help="cpu, or what torch calls a device")
    parser.add_argument("--gpus", type=int, default=1, help="that vLLM spreads the model over")
    parser.add_argument("--dtype", default="auto", help="auto: that of the weights")
    parser.add_argument("--max-input-tokens", type=int, help="of a prompt; left out: what fits")
    parser.add_argument("--max-output-tokens", type=int, help="of an answer; left out: what fits")
    parser.add_argument("--cache-blocks", type=int, default=64, help="at least; more where one request takes more")
    parser.add_argument("--cache-block-tokens", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, default=512, help="computed in one step")
    parser.add_argument("--drain-seconds", type=int, default=15, help="for requests in flight, after SIGTERM")
    parser.add_argument("--vllm-python", default="python3", help="Python of vLLM's own environment")
    parser.add_argument("--tool-call-parser", help="vllm: how the model writes calls; left out: tools are refused")
    parser.add_argument("--content-hash", help="that the model's files must have; asked at every start")
    parser.add_argument("--adapter", help="vllm: folder of a LoRA adapter that is served on --base")
    parser.add_argument("--base", help="vllm: folder of the model that the adapter was trained on")
    parser.add_argument("--adapter-hash", help="as --content-hash, of the adapter")
    parser.add_argument("--base-hash", help="as --content-hash, of the base")
    a = parser.parse_args(arguments)
    if bool(a.adapter) != bool(a.base) or (a.adapter and a.engine != "vllm"):
        parser.error("--adapter and --base go together, and with --engine vllm alone")
    if a.tool_call_parser and a.engine != "vllm":
        parser.error("--tool-call-parser goes with --engine vllm alone")

    held = [(a.model, a.content_hash), (a.adapter, a.adapter_hash), (a.base, a.base_hash)]
    if any(digest for _, digest in held):
        # Where nobody of ours starts a server again, as in a pod, nobody else would look.
        from resources.content import verify

        advice = "It is not served. Restore the folder, or deploy another version"
        for folder, digest in held:
            if digest:
                verify(folder, digest, "registered", advice)

    cache = engines.Cache(a.cache_blocks, a.cache_block_tokens, a.batch_tokens)
    limits = engines.limits(engines.model_config(Path(a.model)), a.max_input_tokens, a.max_output_tokens, cache)
    if a.engine == "vllm":
        command = engines.vllm_command(
            a.vllm_python,
            a.model,
            a.host,
            a.port,
            limits,
            device=a.device,
            dtype=a.dtype,
            gpus=a.gpus,
            drain_seconds=a.drain_seconds,
            tool_call_parser=a.tool_call_parser,
            adapter=engines.adapter_of(Path(a.adapter), Path(a.base)) if a.adapter else None,
        )
        # Our middleware runs inside of it, and reads from the folder what the model's control tokens are.
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        os.environ[MODEL_FOLDER] = str(Path(a.model).absolute())
        # The same process goes on as vLLM: its pid and its session stay what was recorded.
        os.execvp(command[0], command)

    from images.serve import bounded

    # transformers answers to the path that it was given alone; everybody asks for SERVED_NAME, wherever it lies.
    folder = Path(os.path.abspath(a.model))
    if folder.name == engines.SERVED_NAME:
        os.chdir(folder.parent)
        a.model = folder.name
    bounded.serve(a.model, a.host, a.port, limits, cache, device=a.device, dtype=a.dtype)


if __name__ == "__main__":
    main()
