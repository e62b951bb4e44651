"""Walking through the folders of a data set: each is listed once, and no file is asked for by itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from draem.errors import DataError
from draem.images import IMAGE_SUFFIXES


class _Entries(NamedTuple):
    folders: list[str]
    files: frozenset[str]


class Listing:
    """What is in which folder; hidden files and folders are passed over, links are followed."""

    def __init__(self) -> None:
        self._known: dict[str, _Entries] = {}

    def folders(self, folder: Path) -> list[str]:
        """Names of the sub-folders, sorted; none if there is no such folder."""
        return self._entries(folder).folders

    def files(self, folder: Path) -> list[str]:
        """Names of the files, sorted; none if there is no such folder."""
        return sorted(self._entries(folder).files)

    def pictures(self, folder: Path) -> list[Path]:
        """The image files right in a folder, sorted by name."""
        return [folder / name for name in self.files(folder) if name.lower().endswith(IMAGE_SUFFIXES)]

    def images(self, folder: Path) -> list[Path]:
        """The image files below a folder at any depth, sorted; none if there is no such folder."""
        found = [path for place in self.tree(folder) for path in self.pictures(place)]
        return sorted(found, key=lambda path: path.as_posix())

    def has_images(self, folder: Path) -> bool:
        """Whether there is an image file below a folder at any depth."""
        return any(self.pictures(place) for place in self.tree(folder))

    def has(self, file: Path) -> bool:
        """Whether a file is there."""
        return file.name in self._entries(file.parent).files

    def has_folder(self, folder: Path) -> bool:
        """Whether a folder is there."""
        return folder.name in self._entries(folder.parent).folders

    def beside(self, image: Path, ending: str) -> Path | None:
        """The image file whose name without suffix is this image's, followed by `ending`; its suffix may differ."""
        wanted = image.stem + ending
        names = self._entries(image.parent).files
        suffixes = (image.suffix, *(form for suffix in IMAGE_SUFFIXES for form in (suffix, suffix.upper())))
        found = (wanted + suffix for suffix in suffixes if wanted + suffix in names)
        return next((image.with_name(name) for name in found if name != image.name), None)

    def tree(self, folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
        """A folder and those below it, outer ones first; data sets are often linked together: `above` ends a circle."""
        real = os.path.realpath(folder)
        if real in above:
            return
        yield folder
        for name in self.folders(folder):
            yield from self.tree(folder / name, above | {real})

    def _entries(self, folder: Path) -> _Entries:
        key = str(folder)
        if key not in self._known:
            self._known[key] = _scan(folder)
        return self._known[key]


def _scan(folder: Path) -> _Entries:
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                # A link to nowhere, or to itself, counts as a file: reading it then says so.
                if entry.is_symlink() and not Path(entry).exists():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name that a file could have
        pass
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    return _Entries(sorted(folders), frozenset(files))


def _hidden(name: str) -> bool:
    """Hidden files (macOS leaves ._x.png beside x.png) and the folder macOS packs into archives."""
    return name.startswith(".") or name == "__MACOSX"
