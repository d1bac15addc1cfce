"""A page in Chromium: what it draws, and what goes wrong."""

import re
import subprocess
from pathlib import Path

_PROBE = """<script>
    const body = document.body;
    addEventListener("error", event => body.dataset.error = event.message);
    setInterval(() => {
        body.dataset.requests = performance.getEntriesByType("resource").map(resource => resource.name).join(" ");
        body.dataset.width = `${document.documentElement.scrollWidth} of ${innerWidth}`;
    }, 50);
</script></body>"""
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=10000",
    "--enable-logging=stderr",
    "--hide-scrollbars",
]


def drawn_charts(page: str, folder: Path, *, width: int, dark: bool) -> set[str]:
    """The ids of the charts that the page draws as SVG, without an error, a request, or anything beside the window.

    Chromium has no window narrower than 500 pixels.
    """
    # Without the policy: it would hide a request by refusing it.
    open_page = re.sub(r"<meta http-equiv=.*?>\n", "", page)
    open_page = open_page.removesuffix("\n").removesuffix("</body>\n</html>") + _PROBE
    assert "Content-Security-Policy" not in open_page
    path = folder / "page.html"
    path.write_text(open_page, encoding="utf-8")
    flags = [*_FLAGS, f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}"]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = ["chromium", *flags, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "could not be drawn" not in done.stdout.split("<script>")[0]
    assert "CONSOLE" not in done.stderr
    (body,) = re.findall(r"<body[^>]*>", done.stdout.split("<script>")[0])
    assert 'data-requests=""' in body
    assert "data-error" not in body
    assert f'data-width="{width} of {width}"' in body
    drawn = r'<div class="chart vega-embed[^"]*" id="([a-z-]+-\d+)"[^>]*>.*?<svg[^>]*class="marks"'
    return set(re.findall(drawn, done.stdout, re.DOTALL))
