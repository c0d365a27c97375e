"""A headless Chromium for tests, driven over the DevTools protocol through tornado's websocket client (which Jupyter brings).

    with browser.Browser() as page:
        page.open("file:///...")                 # waits until it has loaded
        page.evaluate("document.title")          # promises are awaited
        page.problems                            # console errors, exceptions and failed loads since the last `open`
"""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from tornado.websocket import websocket_connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
         "--disable-background-networking", "--disable-component-update", "--mute-audio", "--hide-scrollbars", "--remote-debugging-port=0")


def end(process):
    """A process and its children, surely."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(20)


def until(what, found, seconds, pause=0.2):
    """Calls `found` until it returns something true, and returns that."""
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        if result := found():
            return result
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds} s for {what}")


class Browser:
    def __init__(self, seconds=90):
        self.seconds, self.problems, self.events, self.numbers = seconds, [], [], itertools.count(1)

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        self.loop = asyncio.new_event_loop()
        self.process = subprocess.Popen([CHROMIUM, *QUIET, f"--user-data-dir={self.profile}", "about:blank"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = Path(self.profile, "DevToolsActivePort")
            number = until("Chromium to start", lambda: port.exists() and port.read_text().split()[:1], self.seconds)[0]
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{number}/json", timeout=30) as reply:
                address = next(one["webSocketDebuggerUrl"] for one in json.load(reply) if one["type"] == "page")
            self.socket = self._await(lambda: websocket_connect(address, max_message_size=1 << 28))
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.command(f"{domain}.enable")
            self.command("Emulation.setFocusEmulationEnabled", enabled=True)        # a page without focus does half of its work
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        end(self.process)
        self.loop.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _await(self, make):
        """What `make` promises; it is called inside the loop, where tornado looks for one."""
        async def inside():
            return await asyncio.wait_for(make(), self.seconds)
        return self.loop.run_until_complete(inside())

    def _receive(self):
        message = json.loads(self._await(lambda: self.socket.read_message()) or "null")
        if message is None:
            raise ConnectionError("Chromium went away")
        kind, told = message.get("method"), message.get("params", {})
        self.events.append(kind)
        if kind == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.problems.append(" ".join(str(one.get("value", one.get("description", ""))) for one in told["args"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif kind == "Network.loadingFailed" and not told.get("canceled"):
            self.problems.append(f"not loaded: {told['errorText']}")
        return message

    def command(self, method, **parameters):
        """One command of the protocol, and its result."""
        number = next(self.numbers)
        self._await(lambda: self.socket.write_message(json.dumps({"id": number, "method": method, "params": parameters})))
        while True:
            message = self._receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def open(self, address):
        """Goes to a page and waits until it has loaded."""
        self.problems.clear(), self.events.clear()
        failed = self.command("Page.navigate", url=address).get("errorText")
        assert not failed, f"{address}: {failed}"
        while "Page.loadEventFired" not in self.events:
            self._receive()

    def evaluate(self, script):
        """The value of a piece of JavaScript; a promise is waited for."""
        got = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if details := got.get("exceptionDetails"):
            raise RuntimeError(f"{script!r}: {details.get('exception', {}).get('description', details['text'])}")
        return got["result"].get("value")

    def wait(self, script, seconds=None):
        """Waits until a piece of JavaScript is true, and returns its value."""
        return until(script, lambda: self.evaluate(script), seconds or self.seconds)

    def resize(self, width, height=900):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def screenshot(self, path, whole=False):
        Path(path).write_bytes(base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
