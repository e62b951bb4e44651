"""Write docs/settings.md from the configuration's own fields, defaults and comments.

python docs/make_settings.py
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

from draem import config
from draem.config import (
    Config,
    DataConfig,
    MaskWeights,
    NetworkConfig,
    ScoreConfig,
    Section,
    SimulationConfig,
    SourceWeights,
    TrainingConfig,
)
from draem.presets import PRESETS

PAGE = Path(__file__).parent / "settings.md"
SECTIONS = {
    "data": DataConfig,
    "simulation": SimulationConfig,
    "network": NetworkConfig,
    "training": TrainingConfig,
    "score": ScoreConfig,
}
INTRO = """# Settings

Written by `docs/make_settings.py` from `src/draem/config/` and `src/draem/presets.py`.

A run's settings are a preset, a YAML file over it (`--config`), and single settings over both (`--set KEY=VALUE`; some
have a flag of their own, such as `--images` and `--seed`). `RUN/config.yaml` holds all of them, resolved, and can be
given as `--config` again. A file names only what it changes:

```yaml
training:
  learning_rate: 5.0e-4
data:
  fit: letterbox
```
"""


def comments(model: type) -> dict[str, str]:
    """The text below each field in the source."""
    (body,) = (node for node in ast.parse(inspect.getsource(model)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def shown(value: Any) -> str:
    """A value as in YAML, short."""
    if value is None:
        return "none"
    if isinstance(value, config.RotationConfig):
        return f"{value.degrees:g}°, p {value.probability:g}, {value.corners}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "all ten" if len(value) == 10 else ", ".join(shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(prefix: str, model: type[Section]) -> list[str]:
    """A row for each setting; weights have a row each."""
    said, rows = comments(model), []
    for name, field in model.model_fields.items():
        inner = type(field.default)
        if issubclass(inner, MaskWeights | SourceWeights):
            rows += settings(f"{prefix}.{name}", inner)
        else:
            rows.append(f"| `{prefix}.{name}` | {shown(field.default)} | {said.get(name, '')} |")
    return rows


def page() -> str:
    """The whole page."""
    presets = {name: Config.resolve(name) for name in PRESETS}
    parts = [INTRO]
    for section, model in SECTIONS.items():
        parts.append(f"## {section}\n\n{(model.__doc__ or '').strip()}\n")
        parts.append("\n".join(["| setting | default | meaning |", "|---|---|---|", *settings(section, model)]) + "\n")
    parts.append("## Presets\n\nEvery setting in which they differ:\n")
    rows = [f"| setting | {' | '.join(f'`{name}`' for name in presets)} |", "|---" * (len(presets) + 1) + "|"]
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            values = [shown(getattr(getattr(preset, section), name)) for preset in presets.values()]
            if len(set(values)) > 1:
                rows.append(f"| `{section}.{name}` | {' | '.join(values)} |")
    parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
