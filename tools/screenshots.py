"""The pictures of the docs, taken in headless Chromium: `python tools/screenshots.py RUN [LAB]`.

RUN is the folder of a run of the demo, LAB the address of a notebook that is open and run in
JupyterLab. They are written to nbs/images as WebP of a few dozen kB."""
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from headless import Browser, browsing  # noqa: E402

IMAGES = ROOT / "nbs" / "images"
WAIT = "await new Promise(done => setTimeout(done, %d))"


def take(browser: Browser, name: str) -> None:
    "What the browser shows, as nbs/images/NAME.webp."
    shot = browser.call("Page.captureScreenshot", format="webp", quality=70)["data"]
    (IMAGES / f"{name}.webp").write_bytes(base64.b64decode(shot))
    print(name, (IMAGES / f"{name}.webp").stat().st_size, "bytes")


def visit(browser: Browser, address: str, width: int, height: int, pause: int = 2000) -> None:
    browser.size(width, height)
    browser.call("Page.navigate", url=address)
    browser.do(WAIT % pause)


def main(run: Path, lab: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder, browsing("chromium") as browser:
        for command, page, more in (("explore", "explorer.html", ["--measure", "12"]),
                                    ("dashboard", "dashboard.html", ["--most", "60"])):
            path = Path(folder) / page
            subprocess.run(["fig", command,
                            "--output-dir", str(run), "--output", str(path), *more], check=True)
            visit(browser, path.as_uri(), 1100, 720)
            if command == "explore":
                browser.do("document.querySelector('#panel button.row').click(); "
                           + WAIT % 800)
            take(browser, command)
        site = ROOT / "_site" / "index.html"
        if site.is_file():
            visit(browser, site.as_uri(), 1100, 900)
            take(browser, "docs")
        if lab:
            visit(browser, lab, 1100, 1200, 15_000)
            take(browser, "notebook")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:3])
