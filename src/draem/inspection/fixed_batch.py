"""Any number of images through a model that was exported for a fixed number."""

from __future__ import annotations

import numpy as np

from draem.inspection.execution import Backend
from draem.pixels import Images


class FixedBatch:
    """A backend whose model takes exactly `batch` images in one run; what is missing is filled up with black ones."""

    def __init__(self, backend: Backend, batch: int) -> None:
        self._backend, self._batch = backend, batch
        self.name, self.execution, self.in_flight = backend.name, backend.execution, backend.in_flight

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.execution.Backend`."""
        parts = [self._run_part(images[start : start + self._batch]) for start in range(0, len(images), self._batch)]
        if len(parts) == 1:
            return parts[0]
        maps, reconstructions = zip(*parts, strict=True)
        return np.concatenate(maps), np.concatenate(reconstructions)

    def _run_part(self, images: Images) -> tuple[Images, Images]:
        count = len(images)
        if count < self._batch:
            filling = np.zeros((self._batch - count, *images.shape[1:]), images.dtype)
            images = np.concatenate((images, filling))
        maps, reconstructions = self._backend.run(images)
        return maps[:count], reconstructions[:count]
