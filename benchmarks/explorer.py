"""How large a page of the explorer is, how soon it paints and how fast it answers.

`python benchmarks/explorer.py` draws a graph of 20,000 features and 100,000 edges in headless
Chromium, on the processor alone: bytes of the file, seconds from opening it to the first picture,
and milliseconds of a frame while the view is panned and zoomed, the pointer goes over marks, and
the cut of strength is dragged. A frame is the time from an event to the picture after it: events
are sent one by one, each once the picture of the last one is there. Every feature is looked for by
its id, and then chosen from its address in turn; what was not found or not drawn is counted.
"""
import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]
from graph_files import FEATURES, large_graph
from headless import Browser, browsing
from record import write

from feature_interaction_graph.visualization import render_explorer

FRAMES = """
  const over = $('over'), box = over.getBoundingClientRect(), times = [];
  const send = (kind, x, y, more = {}) => over.dispatchEvent(new PointerEvent(kind,
    { pointerId: 1, clientX: box.left + x, clientY: box.top + y, bubbles: true, ...more }));
  HTMLElement.prototype.setPointerCapture = () => {};
  const frame = async act => { const begun = performance.now(); act(); await wait(1);
    const channel = new MessageChannel();
    await new Promise(done => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
    times.push(performance.now() - begun); };
"""
GESTURES = {
    "pan": """send('pointerdown', 400, 300);
      for (let at = 0; at < 60; at++)
        await frame(() => send('pointermove', 400 + 6 * at, 300 + 3 * (at % 9)));
      send('pointerup', 760, 300);""",
    "zoom": """for (let at = 0; at < 60; at++) await frame(() => over.dispatchEvent(new WheelEvent(
      'wheel', { deltaY: at < 30 ? -60 : 60, clientX: box.left + 420, clientY: box.top + 330,
      bubbles: true, cancelable: true })));""",
    "hover": """for (let at = 0; at < 60; at++)
      await frame(() => send('pointermove', 60 + (at * 137) % 780, 80 + (at * 71) % 560));""",
    "filter": """for (let at = 0; at < 60; at++) await frame(() => { $('slider').value = 16 * at;
      $('slider').dispatchEvent(new Event('input', { bubbles: true })); });""",
}
EVERY = """
  const missed = [], undrawn = [];
  for (const id of IDS) {
    $('search').focus(); $('search').value = id;
    $('search').dispatchEvent(new Event('input', { bubbles: true }));
    const first = document.querySelector('#result-0 small');
    if (!first || first.textContent.split(' ')[0] !== id) { missed.push(id); continue; }
    $('search').dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
    await wait(1);
    if (facts().selected !== id || !(Number(facts().nodesDrawn) > 0)) undrawn.push(id);
  }
  return [missed.length, undrawn.length];
"""


def median_frames(browser: Browser, path: Path) -> dict[str, dict[str, float]]:
    "Median, 90th percentile and longest frame of every gesture, in milliseconds."
    found = {}
    for name, gesture in GESTURES.items():
        browser.open(path)
        browser.do("await wait(30)")
        times = browser.do(f"{FRAMES} {gesture} return times;")
        found[name] = {"median_ms": round(statistics.median(times), 1),
                       "p90_ms": round(statistics.quantiles(times, n=10)[-1], 1),
                       "longest_ms": round(max(times), 1)}
    return found


def first_paint(browser: Browser, path: Path, tries: int) -> list[float]:
    "Seconds from the beginning of the navigation to the first picture of the graph."
    seconds = []
    for _ in range(tries):
        browser.open(path)
        seconds.append(browser.do("return performance.getEntriesByName('drawn')[0].startTime")
                       / 1000)
    return [round(value, 2) for value in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edges", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=FEATURES,
                        help="how many of the features are looked for and chosen")
    asked = parser.parse_args()
    G, begun = large_graph(asked.edges), time.process_time()
    command = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, browsing(command) as browser:
        path = Path(folder) / "explorer.html"
        render_explorer(G, path)
        spent = time.process_time() - begun
        browser.size(1280, 800)
        numbers = {"file_mb": round(path.stat().st_size / 1e6, 2),
                   "seconds_to_write": round(spent, 1),
                   "first_paint_s": first_paint(browser, path, 5),
                   "frames": median_frames(browser, path)}
        browser.open(path)
        lost, ids = [0, 0], list(G)[:: max(1, FEATURES // asked.features)]
        for at in range(0, len(ids), 200):
            some = browser.do(EVERY.replace("IDS", str(ids[at:at + 200])))
            lost = [sum(pair) for pair in zip(lost, some, strict=True)]
        numbers |= {"looked_for": len(ids), "not_found": lost[0], "not_drawn": lost[1],
                    "requests": len(set(browser.requests) - {"about:blank", path.as_uri()})}
    print(write("explorer", {"features": len(G), "edges": G.number_of_edges(), "browser": command},
                numbers).read_text())


if __name__ == "__main__": main()
