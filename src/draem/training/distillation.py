"""Distillation: what a trained network says of the simulated anomalies, as a target beside their masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from draem.config import DataConfig
from draem.errors import ConfigError, TrainingError
from draem.modelfile import Header, TeacherRecord, read_header
from draem.network.draem import Draem
from draem.network.weights import load_model


@dataclass(frozen=True)
class Teacher:
    """A trained network that answers and does not learn."""

    path: Path
    network: Draem
    header: Header

    @classmethod
    def load(cls, path: Path) -> Teacher:
        """The teacher in a model file, on the CPU.

        Raises:
            ConfigError: the file is not a trained model with a discriminative sub-network.
            ModelFileError: there is no such file, or it is damaged.
        """
        header = read_header(path)
        if header.artefact is not None:
            raise ConfigError(
                f"teacher {path}: an exported model ({header.artefact.format}); give the model that it was exported "
                "from, RUN/model.safetensors"
            )
        network, header = load_model(path)
        if network.parts == "reconstructive":
            raise ConfigError(f"teacher {path}: has no discriminative sub-network, whose map is what is taught")
        return cls(path, network.requires_grad_(False), header)

    @property
    def record(self) -> TeacherRecord:
        """What the student's header says of it."""
        network = self.header.config.network
        return TeacherRecord(
            sha256=self.header.sha256,
            preset=self.header.config.preset,
            reconstructive_width=network.reconstructive_width,
            discriminative_width=network.discriminative_width,
            fold=network.fold,
            levels=network.levels,
        )

    def refuse_other_images(self, student: DataConfig) -> None:
        """Raise ConfigError where the student's network is given other images than the teacher was trained on."""
        known, given = _how_images_come(self.header.config.data), _how_images_come(student)
        wrong = [f"--set data.{name}={value}" for name, value in known.items() if given[name] != value]
        if wrong:
            theirs = self.header.config.data
            if theirs.fit == "tiles" and theirs.overlap != student.overlap:
                # The network does not see it, but what the student has may be too large for these tiles.
                wrong.append(f"--set data.overlap={theirs.overlap}")
            raise ConfigError(
                f"teacher {self.path}: was trained on images that come in another way; train with {' '.join(wrong)}"
            )

    def move_to(self, device: torch.device, *, channels_last: bool) -> None:
        """Put the network where the student is."""
        self.network.to(device)
        if channels_last:
            self.network.channels_last()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Its answer: B×C×H×W in [0,1] → logits B×2×H×W, without a gradient; in the surrounding autocast's mode."""
        answer: Tensor = self.network(images)[1]
        return answer


def sum_of(teacher: Teacher | None) -> str | None:
    """The sum of the teacher's weights; none without a teacher."""
    return None if teacher is None else teacher.header.sha256


def refuse_other_teacher(run: Path, before: Any, teacher: Teacher | None) -> None:
    """Raise TrainingError where a run that began with one teacher (`before`: `sum_of` it) goes on with another."""
    ours = sum_of(teacher)
    if before != ours:
        known, given = (str(one)[:12] if one else "none" for one in (before, ours))
        raise TrainingError(f"{run}: its run has another teacher (sha256 {known}, now {given}); resume with that one")


def _how_images_come(config: DataConfig) -> dict[str, str]:
    """The settings that decide what a network sees of an image, as `--set` takes them."""
    pixels = config.pixel_format
    numbers = pixels.value_range
    return {
        "size": "[{},{}]".format(*config.size),
        "channels": str(pixels.channels),
        "depth": str(pixels.depth),
        "value_range": "null" if numbers is None else "[{:.10g},{:.10g}]".format(*numbers),
        "fit": config.fit,
    }
