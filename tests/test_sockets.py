"""No verb opens a socket to the outside: neither from Python, nor, where strace is there to look, from any library."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from draem import cli
from draem.config import NetworkConfig
from draem.inspection.openvino_backend import import_openvino
from draem.network.draem import Draem

LISTEN = """
import os, sys
def heard(event, details, file=os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        os.write(file, (event + " " + repr(details) + "\\n").encode())
sys.addaudithook(heard)
"""
"""Writes every attempt to reach another machine into the file that is named first."""
VERBS = """
import shlex, time
from draem.cli import main
for words in sys.argv[2:]:
    sys.argv = shlex.split(words)
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
time.sleep(5)  # some report only later
"""
SHORT = (
    "--images 8 --set data.size=32 --set training.batch_size=4 --set network.fold=1 --set network.levels=3 "
    "--set network.reconstructive_width=2 --set network.discriminative_width=2 --set training.validations=1"
)
COMMANDS = {
    "check": ("check TREE",),
    "simulate": ("simulate TREE --out grid.png --preset edge --count 2 --set data.size=32",),
    "train": (f"train TREE/train/good --out run --preset edge {SHORT}",),
    "distill": (f"distill MODEL TREE/train/good --out taught {SHORT} --set data.size=64",),
    "compare": ("compare MODEL ONNX TREE",),
    "report": ("report ONNX TREE --out r.html",),
    "evaluate": ("evaluate MODEL TREE --out e0", "evaluate ONNX TREE --out e1", "evaluate IR TREE --out e2"),
    "predict": ("predict MODEL TREE/test --out p0", "predict ONNX TREE/test --out p1", "predict IR TREE/test --out p2"),
    "import-weights": ("import-weights NAME.pckl NAME_seg.pckl --out published.safetensors",),
    "export": ("export MODEL --data TREE --images 4 --force --precision int8 --out line.xml",),
    "calibrate": (
        "calibrate line.xml TREE --f1",
        "calibrate run/model.safetensors TREE --escape 0.5 --promise average",
    ),
    "benchmark": ("benchmark MODEL --data TREE --images 2 --repeats 1 --only torch:fp32",),
    "info": ("info MODEL", "info ONNX", "info IR"),
    "set": ("set line.xml threshold=0.9",),
}
"""Every verb but `demo`, which is these in a row."""
STRACE = shutil.which("strace")


def _heard(folder: Path, code: str, *arguments: str) -> str:
    """What a program that runs this code tried to reach: attempts from Python, then from anywhere."""
    traced = folder / "traced"
    command = [sys.executable, "-c", LISTEN + code, str(folder / "heard"), *arguments]
    if STRACE:
        watch = ("--follow-forks", "--seccomp-bpf", "--trace=connect,sendto,sendmsg,sendmmsg")
        command = [STRACE, *watch, f"--output={traced}", *command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    heard = (folder / "heard").read_text(encoding="utf-8")
    if STRACE:
        heard += "\n".join(re.findall(r".*AF_INET.*", traced.read_text(encoding="utf-8", errors="replace")))
    return heard


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    network = Draem(NetworkConfig(reconstructive_width=4, discriminative_width=4, aligned_corners=True))
    torch.save(network.reconstructive.state_dict(), tmp_path / "NAME.pckl")
    torch.save(network.discriminative.state_dict(), tmp_path / "NAME_seg.pckl")
    return tmp_path


def test_attempts_are_heard(tmp_path: Path) -> None:
    code = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    heard = _heard(tmp_path, code)
    assert "socket.connect" in heard
    assert ("AF_INET" in heard.replace("AddressFamily.AF_INET", "")) == bool(STRACE)


def test_every_verb_is_listened_to() -> None:
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert verbs - {"demo"} == COMMANDS.keys()


def test_no_verb_reaches_out(
    workplace: Path, tiny_model: Path, tiny_onnx: Path, tiny_ir: Path, woven_tree: Path
) -> None:
    words = {"TREE": woven_tree, "MODEL": tiny_model, "ONNX": tiny_onnx, "IR": tiny_ir}
    told = [command for commands in COMMANDS.values() for command in commands]
    for word, path in words.items():
        told = [re.sub(rf"\b{word}\b", str(path), command) for command in told]
    assert _heard(workplace, VERBS, *(f"draem {command}" for command in told)) == ""
    assert (workplace / "p2" / "results.jsonl").exists()


def test_openvino_reports_nothing_of_its_import(tmp_path: Path, tiny_ir: Path) -> None:
    code = f"import draem\nassert draem.load({str(tiny_ir)!r}).backend.name == 'openvino'\n"
    assert _heard(tmp_path, code) == ""
    # Also where the user has imported it before, in whatever way.
    first = "sys.modules['openvino_telemetry'] = None\nimport openvino\n"
    assert _heard(tmp_path, first + code) == ""


def test_onnx_runtime_is_told_to_report_nothing_before_it_is_loaded(tmp_path: Path, tiny_onnx: Path) -> None:
    """It would send its first event some seconds after, from a library that Python's hooks do not see."""
    code = (
        "class Watch:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import draem\n"
        f"draem.load({str(tiny_onnx)!r}, backend='onnxruntime')\n"
    )
    done = subprocess.run([sys.executable, "-c", f"import os, sys\n{code}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


def test_what_the_user_has_imported_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = type(sys)("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs)
    assert import_openvino().Core
    assert sys.modules["openvino_telemetry"] is theirs
