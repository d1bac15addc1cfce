"""Pages in Chromium, driven by its DevTools protocol over a pipe: what they draw, what a click does, what goes wrong."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
_CHARTS = 'new Set([...document.querySelectorAll(".chart")].filter(x => x.querySelector("svg.marks")).map(x => x.id))'


class Browser:
    """One Chromium for many pages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Chromium reads commands from its file 3 and writes answers and events to its file 4.
        read_by_browser, self._commands = os.pipe()
        self._answers, written_by_browser = os.pipe()
        flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec chromium "$@" 3<&{read_by_browser} 4>&{written_by_browser}', "bash", *flags],
            pass_fds=(read_by_browser, written_by_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_by_browser)
        os.close(written_by_browser)
        self._buffer, self._sent, self._events = b"", 0, list[dict[str, Any]]()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do what a command of the protocol asks, and keep the events that come meanwhile."""
        self._sent += 1
        session = {} if method.startswith("Target.") else {"sessionId": self._session}
        command = {"id": self._sent, "method": method, "params": parameters, **session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self._sent:
            self._events.append(message)
        assert "error" not in message, f"{method}: {message}"
        found: dict[str, Any] = message["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            some = os.read(self._answers, 1 << 20)
            assert some, "Chromium has ended"
            self._buffer += some
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, page: str, *, width: int = 1400, dark: bool = False, scripts: bool = True) -> None:
        """Show a page in a window of this width, and wait until all its charts are drawn."""
        path = self._folder / "page.html"
        path.write_text(page, encoding="utf-8")
        self.visit(path.as_uri(), width=width, dark=dark, scripts=scripts)
        until = time.monotonic() + 60
        charts = 'document.querySelectorAll(".chart").length'
        while scripts and self.evaluate(f"{_CHARTS}.size < {charts}"):
            assert time.monotonic() < until, f"only {self.charts()} are drawn"
            time.sleep(0.05)

    def visit(self, address: str, *, width: int = 1400, dark: bool = False, scripts: bool = True) -> None:
        """Show what stands at an address."""
        self._events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        while self._take("Page.loadEventFired") == []:
            self._events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """Value of an expression of JavaScript on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def charts(self) -> set[str]:
        """Return the ids of the charts that are drawn."""
        return set(self.evaluate(f"[...{_CHARTS}]"))

    def beside(self) -> list[str]:
        """List the elements that reach beyond the window and cannot be scrolled to."""
        found: list[str] = self.evaluate(
            """[...document.querySelectorAll("body *")]
            .filter(x => x.getBoundingClientRect().right > innerWidth + 1 && !x.closest(".wide, .vg-tooltip, pre"))
            .map(x => `${x.tagName} ${x.className.baseVal ?? x.className} ${x.textContent.slice(0, 40)}`)"""
        )
        return found

    def troubles(self) -> list[str]:
        """List errors, lines on the console, what the page's policy refused, and requests beside the page itself."""
        said = [event["params"] for name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled") for event in self._take(name)]
        said += [event["params"]["entry"] for event in self._take("Log.entryAdded")]
        asked = [event["params"]["request"]["url"] for event in self._take("Network.requestWillBeSent")]
        return [json.dumps(one) for one in said] + [url for url in asked if not url.startswith(("file:", "data:"))]

    def _take(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event.get("method") == method]

    def picture(self, path: Path, *, top: int = 0, height: int | None = None) -> None:
        """Save the page, or a strip of it, as PNG."""
        whole = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": whole["width"], "height": height or whole["height"] - top, "scale": 1}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))
