"""`llmops chat`: talk to an endpoint through the gateway."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, actor, fail, out, wiring


def chat(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    message: Annotated[str | None, typer.Argument(help="Ask once; left out, a conversation starts.")] = None,
    user: Annotated[str | None, typer.Option(help="Who asks: the same user always meets the same variant.")] = None,
) -> None:
    """Chat with an endpoint. An empty line ends a conversation. LLMOPS_API_KEY holds the key, where one is asked for.

    Example: `llmops chat desk "부가 통행료는 뭔가요?"`
    """
    from openai import APIConnectionError, APIStatusError, OpenAI

    settings = wiring().settings
    client = OpenAI(base_url=f"{settings.gateway_url}/v1", api_key=settings.own_key, max_retries=0)
    messages: list[dict] = []
    try:
        while text := message or typer.prompt("you", default="", show_default=False, prompt_suffix="> "):
            messages.append({"role": "user", "content": text})
            answer = ""
            stream = client.chat.completions.create(
                model=endpoint, messages=messages, user=user or actor(), stream=True
            )
            for chunk in stream:
                if chunk.choices and (piece := chunk.choices[0].delta.content):
                    answer += piece
                    out.print(piece, end="", markup=False)
            out.print()
            if message:
                return
            messages.append({"role": "assistant", "content": answer})
    except APIConnectionError:
        fail(f"nothing answers at {settings.gateway_url}: start the platform with `llmops up`", Exit.UNAVAILABLE)
    except APIStatusError as error:
        fail(f"the gateway answered {error.status_code}: {error.message}", Exit.FAILED)
