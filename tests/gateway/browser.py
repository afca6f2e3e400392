"""Headless Chromium, driven by its own protocol: what a person would do with a page."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.debian import program


def install() -> str:
    """The program `chromium`: Debian's, where there is none; fails where it cannot be had."""
    return program(("chromium", "chromium-browser", "google-chrome"), "chromium")


class Page:
    """One tab. What the page reports (errors, violations of its policy) is in `faults`, in order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.faults: list[str] = []

    async def _read(self) -> None:
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            elif found["method"] == "Runtime.exceptionThrown":
                self.faults.append(str(found["params"]["exceptionDetails"]))
            elif found["method"] == "Log.entryAdded" and found["params"]["entry"]["level"] == "error":
                if found["params"]["entry"]["source"] == "network":
                    continue
                self.faults.append(found["params"]["entry"]["text"])

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        found = await asyncio.wait_for(answer, 30)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        return found["result"]

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, expression: str, seconds: float = 30.0) -> Any:
        """Wait until an expression is true in the page; its value."""
        end = asyncio.get_running_loop().time() + seconds
        while not (value := await self.run(expression)):
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(
                    f"not in time: {expression}; the page shows: {await self.run('document.body.innerText')}"
                )
            await asyncio.sleep(0.03)
        return value

    async def key(self, key: str, code: int) -> None:
        """Press a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    async def type(self, selector: str, text: str) -> None:
        """Put the focus on an element and type."""
        await self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.send("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def picture(self, path: Path) -> None:
        """Write a PNG of what is shown."""
        found = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await self._socket.close()


@contextlib.asynccontextmanager
async def browser(folder: Path, url: str, *, dark: bool = False, language: str = "ko-KR") -> AsyncIterator[Page]:
    """A tab at `url` in a browser of its own, with an empty profile in `folder`."""
    command = [
        install(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", "--disable-component-update",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", f"--lang={language}", "--window-size=1000,760",
        "about:blank",
    ]  # fmt: skip
    with open(folder / "chromium.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "LANGUAGE": language[:2]})
    try:
        port_file = folder / "DevToolsActivePort"
        end = asyncio.get_running_loop().time() + 60
        while not (port_file.exists() and len(port_file.read_text().split()) == 2):
            if process.poll() is not None or asyncio.get_running_loop().time() > end:
                raise RuntimeError(f"chromium did not start: {(folder / 'chromium.log').read_text()[-2000:]}")
            await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tab = next(t for t in await response.json(content_type=None) if t["type"] == "page")
            page = Page(await session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0))
            try:
                for domain in ("Page", "Runtime", "Log"):
                    await page.send(f"{domain}.enable")
                scheme = "dark" if dark else "light"
                await page.send(
                    "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
                )
                await page.send("Emulation.setLocaleOverride", locale=language)
                await page.send(
                    "Network.setUserAgentOverride", userAgent="tests", acceptLanguage=language, platform="Linux"
                )
                await page.send("Page.navigate", url=url)
                await page.until("document.readyState === 'complete'")
                yield page
            finally:
                await page.close()
    finally:
        process.terminate()
        process.wait(20)
