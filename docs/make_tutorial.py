"""Run the tutorial as it stands, and keep its pictures beside it: python docs/make_tutorial.py OUT.

The picture of the report needs Chromium with its driver, and selenium; without them the old one stays.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_OPTIONS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "hide-scrollbars",
    "disable-background-networking",
    "disable-sync",
)


def code() -> str:
    """The tutorial's blocks of Python, one after the other."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def picture_of_page(page: Path, out: Path) -> None:
    """What a browser shows first."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in (*_OPTIONS, "window-size=1160,1400"):
        options.add_argument(f"--{option}")
    service: Any = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    browser.get(page.resolve().as_uri())
    browser.save_screenshot(str(out))
    browser.quit()


def main() -> None:
    """Run it in a folder, and copy its pictures."""
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    exec(compile(code(), "tutorial.md", "exec"), {})  # the page is our own
    for name in ("prediction", "scores"):
        shutil.copy(out / "tutorial" / f"{name}.png", DOCS / f"tutorial-{name}.png")
    if shutil.which("chromedriver"):
        picture_of_page(out / "tutorial" / "report.html", DOCS / "tutorial-report.png")


if __name__ == "__main__":
    main()
