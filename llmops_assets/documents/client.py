"""Asks a chat model behind any OpenAI-compatible address, with limits on time, size and patience."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

LARGEST_ANSWER = 4 << 20
"""Bytes of an answer that are read: a server may send without end."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second attempt, doubled for each further one."""


class AskError(RuntimeError):
    """No answer, or none that is an answer; asking `again` may help, `after` the seconds that the server asks for."""

    def __init__(self, reason: str, after: float | None = None, *, again: bool = True) -> None:
        super().__init__(reason)
        self.after = after
        self.again = again


class Unusable(RuntimeError):
    """The address, the model or the key is wrong: asking again will not help."""


@dataclass
class ChatModel:
    """One model at one address. `key` goes into the header alone: never into errors or logs."""

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 3
    temperature: float | None = 0.2
    max_tokens: int = 1024
    headers: dict[str, str] = field(default_factory=dict)
    first_pause: float = FIRST_PAUSE
    _forms: list[str] = field(default_factory=lambda: ["json_schema", "json_object", "none"], repr=False)

    def session(self) -> "aiohttp.ClientSession":
        """Connections to the server; to be used as an asynchronous context manager."""
        import aiohttp

        headers = {**self.headers, **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        # The total holds for a server that sends a byte now and then, which a read timeout would wait for for ever.
        limit = aiohttp.ClientTimeout(total=self.timeout, connect=min(10.0, self.timeout))
        return aiohttp.ClientSession(headers=headers, timeout=limit)

    async def ask(
        self, session: "aiohttp.ClientSession", messages: list[dict[str, str]], schema: dict[str, Any]
    ) -> str:
        """The model's answer to a conversation; raises AskError after the last attempt, Unusable at once.

        Asks for JSON of `schema` where the server can be held to it, and without where it refuses.
        """
        pause = self.first_pause
        for attempt in range(1, self.attempts + 1):
            try:
                return await self._once(session, messages, schema)
            except AskError as error:
                if attempt == self.attempts or not error.again:
                    raise AskError(f"{error} ({attempt} attempts)") from error
                wanted = pause * random.uniform(0.8, 1.2) if error.after is None else error.after
                await asyncio.sleep(min(wanted, LONGEST_PAUSE))
                pause *= 2
        raise AssertionError("unreachable")

    async def _once(
        self, session: "aiohttp.ClientSession", messages: list[dict[str, str]], schema: dict[str, Any]
    ) -> str:
        while True:
            form = self._forms[0]
            status, data, after = await self._post(session, self._body(messages, schema, form))
            if status == 400 and self.temperature is not None and _about_temperature(data):
                # An engine that decodes greedily says so; the rows are then what it always answers.
                self.temperature = None
                continue
            if status in (400, 404, 415, 422, 501) and form != "none" and _about_form(data):
                # Several passages may be refused at the same time: only the first of them moves on.
                if self._forms[0] == form:
                    self._forms.pop(0)
                continue
            return _answer(status, data, after)

    def _body(self, messages: list[dict[str, str]], schema: dict[str, Any], form: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if form == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "rows", "schema": schema, "strict": True},
            }
        elif form == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def _post(self, session: "aiohttp.ClientSession", body: dict[str, Any]) -> tuple[int, bytes, float | None]:
        import aiohttp

        url = f"{self.base_url.rstrip('/')}/chat/completions"
        try:
            # A redirect would carry the key elsewhere.
            async with session.post(url, json=body, allow_redirects=False) as response:
                data = await response.content.read(LARGEST_ANSWER + 1)
                while len(data) <= LARGEST_ANSWER and (more := await response.content.read(LARGEST_ANSWER)):
                    data += more
                if len(data) > LARGEST_ANSWER:
                    raise AskError(f"the server sent more than {LARGEST_ANSWER:,} bytes")
                return response.status, data, _after(response.headers.get("Retry-After"))
        except TimeoutError as error:
            raise AskError(f"no answer within {self.timeout:g} s") from error
        except aiohttp.InvalidURL as error:
            raise Unusable(f"{self.base_url} is no address") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AskError(f"{self.base_url} does not answer ({type(error).__name__})") from error


def _after(header: str | None) -> float | None:
    """Seconds that the server asks to wait, where it says a number."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


def _about_form(data: bytes) -> bool:
    """Whether a refusal is of `response_format`; some servers name only what they do not know."""
    text = data.decode("utf-8", "replace").lower()
    return any(word in text for word in ("response_format", "json_schema", "json_object", "guided", "schema"))


def _about_temperature(data: bytes) -> bool:
    """Whether a refusal is of `temperature`."""
    try:
        error = json.loads(data)["error"]
        return error["param"] == "temperature"
    except (ValueError, LookupError, TypeError):
        return False


def _answer(status: int, data: bytes, after: float | None) -> str:
    if status in (401, 403):
        raise Unusable(f"the server refuses the key (HTTP {status}): set it in the environment")
    if status in (301, 302, 307, 308):
        raise Unusable(f"the server sends elsewhere (HTTP {status}): give the address that it sends to")
    if status in (404, 405):
        raise Unusable(f"there is no such model or address (HTTP {status}): {_reason(data)}")
    if status in (400, 413, 422):
        # Of this passage: it may be too long for the model.
        raise AskError(f"the server refuses the request (HTTP {status}): {_reason(data)}", again=False)
    if status != 200:
        raise AskError(f"HTTP {status}: {_reason(data)}", after)
    try:
        choice = json.loads(data)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise AskError("the server's answer is no chat completion") from error
    if not isinstance(text, str) or not text.strip():
        raise AskError("the model's answer is empty")
    if choice.get("finish_reason") == "length":
        raise AskError("the model's answer was cut off: raise max_tokens or ask for fewer rows")
    return text


def _reason(data: bytes) -> str:
    """What a refusal says, in short."""
    try:
        answer = json.loads(data)
        error = answer.get("error", answer.get("detail", answer)) if isinstance(answer, dict) else answer
        text = error.get("message", error) if isinstance(error, dict) else error
    except ValueError:
        text = data.decode("utf-8", "replace")
    return str(text).strip()[:200] or "no reason given"
