"""A headless browser that tests drive over its DevTools protocol."""

import asyncio
import itertools
import json
import shutil
import subprocess
import time

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOON = 30.0  # seconds: only reached when something is broken


class PageLeft(Exception):
    """The page was left for another one before it could answer."""


class Browser:
    """One page in a browser of its own; a context manager that ends it.

    Args:
        folder: An empty folder for the browser's profile.

    Attributes:
        troubles: What the page has reported: exceptions, and warnings and errors of its console.
    """

    def __init__(self, folder):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(f"no browser to look at the page with: {', '.join(NAMES)}")
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self.troubles = []
        self._process = subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
                f"--user-data-dir={folder}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self):
        self._loop.run_until_complete(self._connect())
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *exception):
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait(SOON)

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol and return its result."""
        return self._loop.run_until_complete(
            asyncio.wait_for(self._call(method, parameters), SOON)
        )

    def show(self, url, width=1280, height=900, scheme="light"):
        """Open a page on a screen of a size, light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression, between=lambda: time.sleep(0.05)):
        """Wait until a JavaScript expression is true; `between` is called again and again."""
        expression = f"document.readyState === 'complete' && ({expression})"
        end = time.monotonic() + SOON
        while not self._is_true(expression):
            assert time.monotonic() < end, (
                f"{expression}\n{self.evaluate('document.body.innerText')}\n{self.troubles}"
            )
            between()

    def _is_true(self, expression):
        try:
            return self.evaluate(expression)
        except PageLeft:
            return False

    async def _connect(self):
        file = self._folder / "DevToolsActivePort"
        end = time.monotonic() + SOON
        while not (file.exists() and "\n" in file.read_text()):
            assert time.monotonic() < end and self._process.poll() is None, "no browser"
            await asyncio.sleep(0.05)
        port = file.read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [each for each in await answer.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method, parameters):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async for message in self._socket:
            answer = json.loads(message.data)
            if answer.get("id") == number:
                if "navigated" in answer.get("error", {}).get("message", ""):
                    raise PageLeft(answer)
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)
        raise AssertionError("the browser has ended")

    def _note(self, event):
        method, found = event.get("method"), event.get("params", {})
        is_trouble = (
            method == "Runtime.exceptionThrown"
            or (method == "Log.entryAdded" and found["entry"]["level"] in ("warning", "error"))
            or (method == "Runtime.consoleAPICalled" and found["type"] in ("warning", "error"))
        )
        if is_trouble:
            self.troubles.append(found)
