"""Every error that a person can cause: what is wrong, where, what to do. The command line prints one line and exits 1.

DraemError
├── ConfigError        a setting that is unknown, out of range or contradicts another
├── DataError          a folder that cannot be understood, or holds no usable images
│   └── ImageError     one file that cannot be read as an image
├── ModelFileError     a model file or checkpoint that is damaged, hostile or of another kind
├── TrainingError      a training run that cannot go on
│   └── MemoryLimitError   a batch that does not fit into memory
├── ParityError        an export whose answers are not those of the model
├── MissingExtraError  a package that an extra would have installed
└── BrokenPackageError a package that is installed and does not load
"""

from __future__ import annotations


class DraemError(Exception):
    """Base of all errors that are the caller's to mend; its text is one line."""


class ConfigError(DraemError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(DraemError):
    """A data set cannot be understood, or holds no usable images."""


class ImageError(DataError):
    """One file cannot be read as an image."""


class ModelFileError(DraemError):
    """A model file or checkpoint is damaged, hostile or of another kind."""


class TrainingError(DraemError):
    """A training run cannot go on."""


class MemoryLimitError(TrainingError):
    """A batch does not fit into memory."""


class ParityError(DraemError):
    """An export's answers are further from those of its model than the tolerance allows."""


class MissingExtraError(DraemError):
    """A package is missing that one of the extras installs."""

    def __init__(self, package: str, extra: str, instead: str = "") -> None:
        more = f", {instead}" if instead else ""
        super().__init__(f"{package} is not installed: run pip install 'draem[{extra}]'{more}")


class BrokenPackageError(DraemError):
    """A package is installed, but does not load, as where a shared library that it needs is missing."""

    def __init__(self, package: str, reason: Exception) -> None:
        words = " ".join(str(reason).split())[:160]
        super().__init__(
            f"{package} is installed, but does not load ({words}): install what it misses, or run pip install "
            f"--force-reinstall {package}"
        )
