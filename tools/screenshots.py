"""The pictures of the docs, taken in headless Chromium: `python tools/screenshots.py RUN`.

RUN is the folder of a run of the demo. They are written to nbs/images as WebP of a few dozen kB;
notebook.webp, of JupyterLab, is taken by hand."""
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


def visit(browser: Browser, address: str, width: int, height: int) -> None:
    browser.size(width, height)
    browser.call("Page.navigate", url=address)
    browser.do(WAIT % 2000)


def main(run: Path) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
