"""`draem info` shows all that a model's header says, of all three kinds of file, and what is doubtful in yellow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import Outcome
from draem.modelfile import (
    Artefact,
    Certificate,
    DataRecord,
    Header,
    ImageParity,
    RegionOfInterest,
    Thresholds,
    TrainingRecord,
    edit_header,
    read_header,
)
from draem.tables.models import header_table
from graphs import brightness_header, write_brightness
from tiny import write_tiny_model

Run = Callable[..., Outcome]
IMAGES = [
    ImageParity(name=f"{number}.png", score_before=0.4, score_after=0.41, map_max=0.03, map_mean=0.002)
    for number in range(12)
]


def _header(**certificate: Any) -> Header:
    known: dict[str, Any] = {
        "execution": "openvino 2026.4.1 on cpu in int8",
        "images": IMAGES,
        "flips": 0,
        "map_max": 0.03,
        "map_mean": 0.002,
        "score": 0.01,
        "tolerance": {"map_mean": 0.01, "score": 0.02},
        "metrics_before": {"image_auroc": 0.992, "pixel_ap": 0.6881, "pixel_aupro": None},
        "metrics_after": {"image_auroc": 0.9915, "pixel_ap": 0.6842, "pixel_aupro": None},
    }
    artefact = Artefact(
        format="openvino",
        precision="int8",
        batch=4,
        source_sha256="ab" * 32,
        quantised_on="300 images of bottle",
        kept=[f"conv_{n}" for n in range(7)],
        certificate=Certificate(**known | certificate),
    )
    training: dict[str, Any] = {"images_seen": 8000, "steps": 1000, "step_kept": 900, "seconds": 600.0}
    return brightness_header(Thresholds(reject=0.5, review=0.4, chosen_on="40 good images"), batch=4).model_copy(
        update={
            "artefact": artefact,
            "region": RegionOfInterest(
                inspect=[[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]],
                ignore=[[(0.0, 0.0), (0.25, 0.0), (0.25, 0.5), (0.0, 0.5)]] * 3,
            ),
            "data": DataRecord(name="bottle", fingerprint="cd" * 32, train=180, select=9, calibrate=20),
            "training": TrainingRecord(**training, device="cuda", precision="bf16"),
            "versions": {"torch": "2.13.0"},
        }
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml"])
def test_everything_is_shown(tmp_path: Path, run_cli: Run, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    header = _header()
    if suffix == ".safetensors":
        edit_header(write_tiny_model(path), header)
    else:
        write_brightness(path, header)
    shown = run_cli("info", path)
    assert shown.code == 0
    for text in (
        "38% of the image: 1 polygon inspected, 3 polygons ignored",
        "openvino, int8, 4 images in one run",
        "ab" * 32,
        "300 images of bottle",
        "conv_0, conv_1, conv_2, conv_3, conv_4 and 2 more",
        "map at most 0.03, map on average 0.002 (of 0.01), score at most 0.01 (of 0.02); openvino 2026",
        "0 of 12 differ from the network's",
        "image auroc 0.9920 → 0.9915, pixel ap 0.6881 → 0.6842",
        "180 train, 9 select, 20 calibrate; fingerprint cdcd",
        "8000 images, 10.0 min on cuda in bf16",
        "40 good images",
        read_header(path).sha256,
    ):
        assert text in shown.out, text
    whole = run_cli("info", path, "--json").out.splitlines()[-1]
    assert json.loads(whole) == json.loads(read_header(path).model_dump_json())
    assert len(json.loads(whole)["artefact"]["certificate"]["images"]) == 12


def _yellow(header: Header) -> list[str]:
    """First cells of the rows that are yellow."""
    stream = io.StringIO()
    Console(file=stream, width=250, force_terminal=True, color_system="standard").print(header_table(header))
    rows = [line for line in stream.getvalue().splitlines() if "\x1b[33m" in line]
    return [row.split("\x1b[33m")[2].split("\x1b")[0].strip() for row in rows]


@pytest.mark.parametrize(
    ("certificate", "rows"),
    [
        ({}, []),
        ({"flips": None}, []),
        ({"flips": 2}, ["verdicts"]),
        ({"forced": True}, ["certificate"]),
        ({"stale": "another region"}, ["stale"]),
    ],
)
def test_what_is_doubtful_is_yellow(certificate: dict[str, Any], rows: list[str]) -> None:
    assert _yellow(_header(**certificate)) == rows


def test_a_header_of_others_does_not_act_on_the_terminal() -> None:
    header = _header(execution="\x1b[31mred [bold]x[/]", stale="\x07\n\u202e")
    stream = io.StringIO()
    Console(file=stream, width=250).print(header_table(header))
    shown = stream.getvalue()
    assert "\\x1b[31mred [bold]x[/]" in shown
    assert "\\x07\\n\\u202e" in shown
