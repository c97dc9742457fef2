"""A headless Chromium that tests drive through its debugging pipe: pages, scripts, keys, pointers,
screenshots, and what a page logged or asked the network for."""
import base64
import contextlib
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--hide-scrollbars", "--force-device-scale-factor=1", "--remote-debugging-pipe",
         "--disable-dev-shm-usage", "--disable-features=Translate,MediaRouter"]


class Browser:
    "One browser with one tab; `messages`: events that came, `requests`: addresses asked for."

    def __init__(self, command: str, profile: str) -> None:
        (there, self.write), (self.read, back) = os.pipe(), os.pipe()
        def pipes() -> None:
            # 3 and 4 are where the browser reads and writes; both are moved out of the way first
            ends = [os.dup2(there, 60), os.dup2(back, 61)]
            for end, place in zip(ends, (3, 4), strict=True): os.dup2(end, place)
        self.process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"], preexec_fn=pipes,
            close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(there)
        os.close(back)
        self.rest, self.number, self.session = b"", itertools.count(1), None
        self.requests: list[str] = []
        self.faults: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"): self.call(f"{domain}.enable")

    def _next(self, timeout: float) -> dict[str, Any]:
        until = time.monotonic() + timeout
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, until - time.monotonic()))
            if not ready: raise TimeoutError("the browser does not answer")
            self.rest += os.read(self.read, 2**20)
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method: str, timeout: float = 120.0, **parameters: Any) -> dict[str, Any]:
        "Does one thing and returns what came of it; events on the way are kept."
        number = next(self.number)
        message = {"id": number, "method": method, "params": parameters}
        if self.session: message["sessionId"] = self.session
        content = json.dumps(message).encode() + b"\0"
        while content: content = content[os.write(self.write, content):]
        while True:
            answer = self._next(timeout)
            if answer.get("id") == number:
                if "error" in answer: raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            given = answer.get("params", {})
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(given["exceptionDetails"])[:600])
            if answer.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
                self.faults.append(given["entry"]["text"])

    def do(self, script: str) -> Any:
        """The value of an expression or of the body of an async function with `$`, `press`, `wait`,
        `set` and `facts`."""
        body = script if "return" in script or ";" in script else f"return {script}"
        found = self.call("Runtime.evaluate", expression=f"(async () => {{ {PRELUDE} {body} }})()",
                          awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:1500])
        return found["result"].get("value")

    def size(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        "The size of the window, and what the person prefers."
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path, fragment: str = "", timeout: float = 60.0) -> None:
        "Opens a page anew and waits until it says that it is ready."
        self.requests.clear()
        self.faults.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        until = time.monotonic() + timeout
        while True:
            state = self.do("return (document.body || {dataset: {}}).dataset.ready "
                            "|| (document.body || {dataset: {}}).dataset.fault || ''")
            if state == "true": break
            broken = any("SyntaxError" in fault for fault in self.faults)
            if state or broken or time.monotonic() > until:
                raise RuntimeError(f"{path.name}: {state or 'is not ready'} {self.faults}")
            time.sleep(0.02)
        self.do("await wait(2)")

    def pointer(self, kind: str, x: float, y: float, **more: Any) -> None:
        "A pointer event where a mouse would make it: mouseMoved, mousePressed, mouseReleased."
        pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**pressed, **more})

    def click(self, x: float, y: float) -> None:
        "A click of the mouse."
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"): self.pointer(kind, x, y)
        self.do("await wait(2)")

    def key(self, key: str, text: str = "") -> None:
        "A key that is pressed and let go."
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      **({"text": text} if text and kind == "keyDown" else {}))
        self.do("await wait(2)")

    def facts(self) -> dict[str, str]:
        "The data-… attributes that the page keeps on its body."
        return self.do("return {...document.body.dataset}")

    def text(self, selector: str = "#panel") -> str:
        "What a person reads there, on one line."
        shown = self.do(f"return document.querySelector({json.dumps(selector)}).innerText")
        return " ".join(shown.split())

    def picture(self, path: Path) -> Path:
        "A screenshot."
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def close(self) -> None:
        "Ends the browser that this object started."
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self.session = None
            self.call("Browser.close", timeout=5)
        try: self.process.wait(10)
        except subprocess.TimeoutExpired: self.process.kill()
        for end in (self.read, self.write): os.close(end)


PRELUDE = """
const $ = id => document.getElementById(id);
const wait = many => new Promise(done => {
  const next = () => many-- > 0 ? requestAnimationFrame(next) : done(); next(); });
const set = async (id, value, ...events) => { $(id).value = value;
  for (const kind of events.length ? events : ['input', 'change'])
    $(id).dispatchEvent(new Event(kind, { bubbles: true }));
  await wait(3); };
const push = async id => { (typeof id === 'string' ? $(id) : id).click(); await wait(3); };
const named = text => [...document.querySelectorAll('button')]
  .find(one => one.textContent === text);
const facts = () => ({ ...document.body.dataset });
"""


@contextlib.contextmanager
def browsing(command: str) -> Iterator[Browser]:
    "A browser with a profile of its own, which are both gone afterwards."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(command, profile)
        try: yield browser
        finally: browser.close()
