"""The report of 500 images: its size, how long a browser takes to open it, and how soon a slider answers.

    python benchmarks/report.py runs/bottle/model.safetensors bottle

The data set's test images are taken over and over, each time turned and shifted in brightness, until there are enough.
Needs Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import write_result
from selenium import webdriver

from draem.data.layouts import read_layout
from draem.evaluation.report.page import report
from draem.images import read_image, write_image

_OPTIONS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "no-first-run",
    "disable-background-networking",
    "disable-sync",
)
_SLIDE = """
  const slider = document.getElementById("reject"), took = [];
  for (let step = 0; step < 100; step += 1) {
    slider.value = 10 * step;
    const start = performance.now();
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    document.body.getBoundingClientRect();  // the page is laid out anew within the time
    took.push(performance.now() - start);
  }
  return took;
"""


def many(data: Path, out: Path, count: int) -> Path:
    """A data set with so many test images, no two alike."""
    samples = read_layout(data).test
    for number in range(count):
        sample = samples[number % len(samples)]
        turns, shift = divmod(number // len(samples), 5)
        image = np.clip(read_image(sample.path).astype(np.int16) + 2 * shift, 0, 255).astype(np.uint8)
        write_image(out / "test" / sample.defect / f"{number:04d}.png", np.rot90(image, turns).copy())
    first = next(sample for sample in samples if sample.label == "good")
    write_image(out / "train" / "good" / "0.png", read_image(first.path))
    return out


def open_page(path: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds until the page is loaded, and milliseconds of single moves of the slider."""
    options = webdriver.ChromeOptions()
    for option in _OPTIONS:
        options.add_argument(f"--{option}")
    service: Any = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        loads = []
        for _ in range(repeats):
            browser.get("about:blank")
            start = time.perf_counter()
            browser.get(path.resolve().as_uri())
            loads.append(time.perf_counter() - start)
        return loads, browser.execute_script(_SLIDE)
    finally:
        browser.quit()


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        start = time.perf_counter()
        found = report(given.model, many(given.data, Path(folder) / "data", given.images), page)
        making = time.perf_counter() - start
        size = page.stat().st_size
        loads, slides = open_page(page, given.repeats)
    results = {
        "images": len(found.images),
        "input_size": found.input_size,
        "seconds_to_make": making,
        "megabytes": size / 1e6,
        "seconds_to_open": statistics.median(loads),
        "slider_milliseconds_median": statistics.median(slides),
        "slider_milliseconds_most": max(slides),
    }
    for name, value in results.items():
        print(f"{name:28} {value}")
    print(write_result("report", results, given.result))


if __name__ == "__main__":
    main()
