"""The report's page in a browser: nothing sticks out, all pictures load, nothing is fetched."""

import html
import json
import re
import shutil
import subprocess

import pytest

PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images];
  parent.postMessage({ name: window.name, probe: {
    overflow: document.documentElement.scrollWidth - innerWidth,
    images: images.length, broken: images.filter((each) => !each.naturalWidth).length,
    bars: [...document.querySelectorAll(".histogram rect")]
      .map((each) => each.getBoundingClientRect().height),
    tracks: [...document.querySelectorAll(".track")].map((each) => each.offsetWidth),
    headings: [...document.querySelectorAll("h2")].map((each) => each.textContent),
  } }, "*"); });</script>"""

WIDTHS = {"wide": 1200, "narrow": 390}


@pytest.fixture
def look(tmp_path):
    """Open a page in a browser, at each width, and return what the probe finds."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser to look at the page with: {', '.join(names)}")

    def look(page):
        text = page.read_text(encoding="utf-8")
        # The page itself allows no script.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', PROBE, text)
        probed = tmp_path / "probed.html"
        probed.write_text(text)
        frames = "".join(
            f'<iframe name="{name}" src="{probed.as_uri()}" width="{width}" '
            'height="6000"></iframe>'
            for name, width in WIDTHS.items()
        )
        outer = tmp_path / "outer.html"
        outer.write_text(f"""<!DOCTYPE html><pre id="probe" hidden></pre><script>
            const seen = {{}};
            addEventListener("message", ({{ data }}) => {{
              seen[data.name] = data.probe;
              document.getElementById("probe").textContent = JSON.stringify(seen);
            }});</script>{frames}""")
        dom = subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
             "--window-size=1300,6000", "--virtual-time-budget=5000", "--dump-dom",
             outer.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        ).stdout  # fmt: skip
        found = re.search(r'<pre id="probe" hidden="">(.*?)</pre>', dom, re.S)[1]
        return json.loads(html.unescape(found))

    return look


def test_the_page_in_a_browser(quantize, compiler, tmp_path, look):
    compiler.noise = 1
    result = quantize("--max-ms", 0.001)
    assert result.exit_code == 1
    seen = look(tmp_path / "out/report.html")
    assert set(seen) == set(WIDTHS)
    for page in seen.values():
        assert page["overflow"] <= 0
        assert (page["images"], page["broken"]) == (10 + 12, 0)
        assert max(page["bars"]) > 50
        assert min(page["tracks"]) >= 1
        assert page["headings"] == [
            "Proof", "Fidelity", "Where the time goes", "Calibration", "The recipe plain",
            "Files and versions",
        ]  # fmt: skip
