"""The house's floors: who may import whom, and what must stay light to start."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import draem

SOURCE = Path(draem.__file__).parent
FLOORS = (
    (
        *("errors", "files", "pixels", "tifftags", "arrayfiles", "imagefiles", "imageheaders", "images", "pictures"),
        *("presets", "settings", "config", "modelfile", "pages", "figures"),
    ),
    ("data",),
    ("simulation",),
    ("network",),
    ("inspection",),
    ("evaluation",),
    ("training",),
    ("deployment",),
    ("components", "demo", "plots", "preview", "tables", "verbs", "cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
WITH_TORCH = (
    "simulation",
    "network",
    "training",
    "deployment.balancing",
    "deployment.formats",
    "deployment.fragility",
    "deployment.graph",
    "deployment.material",
    "deployment.quantise",
    "deployment.rounding",
    "components",
    "plots",
    "preview",
)
TORCH = ("torch", "safetensors", "lightning_fabric", "tensorboard")


def _modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below `draem`; the package's own `__init__` is ''."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = _modules()


def _nodes(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes, or those that run when the module is imported: outside of functions and TYPE_CHECKING."""
    for child in ast.iter_child_nodes(tree):
        if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _nodes(child, at_import=at_import)


def _imported(tree: ast.AST, *, at_import: bool) -> Iterator[str]:
    """Dotted names of imported modules; of `from a import b` both a and a.b, since b may be a module."""
    for node in _nodes(tree, at_import=at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ours(name: str) -> set[str]:
    """Our modules that a module imports, at any place in it."""
    inside = {full.removeprefix("draem.") for full in _imported(MODULES[name], at_import=False)}
    return {other for other in inside if other in MODULES and other != name}


def test_the_scan_sees_the_package() -> None:
    assert {"config", "network.draem", "training.trainer", "cli"} <= MODULES.keys()
    assert "network.weights" in _ours("inspection.backends"), "imports inside functions are seen too"
    assert "torch" in set(_imported(MODULES["network.draem"], at_import=True))
    assert "torch" not in set(_imported(MODULES["inspection.backends"], at_import=True))


def test_every_module_is_in_a_known_room() -> None:
    assert {name.split(".")[0] for name in MODULES if name} <= LEVEL.keys()


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name))
def test_no_module_imports_from_a_floor_above(name: str) -> None:
    level = LEVEL[name.split(".")[0]]
    above = sorted(other for other in _ours(name) if other and LEVEL[other.split(".")[0]] > level)
    assert not above


def test_no_circles_of_imports() -> None:
    # The package's own __init__ names modules for type checkers and loads them when they are asked for.
    graph = {name: _ours(name) - {""} for name in MODULES if name}
    assert list(TopologicalSorter(graph).static_order())


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert not [name for name in _imported(MODULES[""], at_import=True) if name.startswith("draem")]


def test_torch_only_where_tensors_live() -> None:
    users = {
        name
        for name, tree in MODULES.items()
        if any(other.split(".")[0] in TORCH for other in _imported(tree, at_import=True))
    }
    assert users
    assert not [name for name in users if not name.startswith(WITH_TORCH)]


def _loaded_by(code: str) -> set[str]:
    """Top-level packages in sys.modules after running code in a fresh Python."""
    tell = "import json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_draem_loads_next_to_nothing() -> None:
    heavy = {"torch", "cv2", "numpy", "pydantic", "yaml", "typer", "rich", "safetensors", "sklearn"}
    assert "numpy" in _loaded_by("import numpy")
    assert not _loaded_by("import draem") & heavy


def test_help_loads_neither_torch_nor_numbers() -> None:
    code = (
        "import sys, draem.cli\nsys.argv = ['draem', '--help']\n"
        "try: draem.cli.main()\nexcept SystemExit as ended: assert not ended.code"
    )
    loaded = _loaded_by(code)
    assert "typer" in loaded
    assert not loaded & {"torch", "cv2", "numpy", "pydantic", "safetensors", "lightning_fabric"}


def test_inspection_and_evaluation_load_without_torch() -> None:
    free = sorted(name for name in MODULES if name and name != "__main__" and not name.startswith(WITH_TORCH))
    assert {"evaluation.evaluate", "inspection.detector", "modelfile", "data.bank", "verbs", "cli"} <= set(free)
    loaded = _loaded_by("\n".join(f"import draem.{name}" for name in free))
    assert "cv2" in loaded
    assert not loaded & set(TORCH)


def test_a_header_is_read_without_torch(tiny_model: Path) -> None:
    code = (
        f"from pathlib import Path; from draem.modelfile import read_header\n"
        f"assert read_header(Path({str(tiny_model)!r})).config.data.size == (64, 64)"
    )
    assert not _loaded_by(code) & set(TORCH)


def test_public_names_are_what_they_say() -> None:
    for name in draem.__all__:
        assert getattr(draem, name) is not None
    assert set(draem.__all__) <= set(dir(draem))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = draem.nonsense
