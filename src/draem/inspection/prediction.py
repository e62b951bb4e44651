"""What inspecting one image gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.registration import Placement
from draem.images import Fit, fit_image, plan_fit, unfit_box, unfit_map, unfit_places, write_image
from draem.inspection.figures import prediction_figure, prediction_html
from draem.inspection.scoring import Region, exceeds, find_regions, smooth
from draem.modelfile import Reference, Thresholds, Verdict
from draem.pictures import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Prediction:
    """One inspected image; its maps, masks and boxes are in the image's own pixels.

    Attributes:
        image: H×W×3 uint8 RGB, for people: see `draem.pixels.view`.
        path: where it was read from; none for an array.
        score: maximum of the smoothed anomaly map, in [0,1].
        verdict: accept, review or reject; none where the model has no threshold.
        thresholds: those of the model, or of the profile that it was loaded with.
        reference: good scores, likewise; none where there are none to compare with.
        input_map: anomaly map at the network's input size, h×w float32 in [0,1]: what metrics are taken on; of an
            image inspected in tiles at the image's own size.
        reconstruction: h×w×3 uint8 RGB for people, of the same size: what the network thinks a normal part looks like.
        inspected: bool, of the input map's size: where anomalies count; none: everywhere.
        placement: how registration found the part to lie; none where the model has none.
        milliseconds: the image's share of the time that its batch took for preprocessing, network and scoring; neither
            decoding nor waiting for other batches is in it.
    """

    image: NDArray[np.uint8]
    path: Path | None
    score: float
    verdict: Verdict | None
    thresholds: Thresholds | None
    reference: Reference | None
    input_map: NDArray[np.float32]
    reconstruction: NDArray[np.uint8]
    inspected: NDArray[np.bool_] | None
    placement: Placement | None
    milliseconds: float
    data: DataConfig
    filter_size: int

    @property
    def threshold(self) -> float | None:
        """Scores above are rejected; none where the model has no threshold."""
        return self.thresholds.reject if self.thresholds else None

    @property
    def lowest_threshold(self) -> float | None:
        """Scores above are not accepted: that of review, else of rejection; none where the model has no threshold."""
        return self.thresholds.lowest if self.thresholds else None

    @cached_property
    def smoothed(self) -> NDArray[np.float32]:
        """The input map after the mean filter, whose maximum is the score: of the input map's size."""
        return smooth(self.input_map, self.filter_size)

    @property
    def fit(self) -> Fit:
        """Where the image lies in its input map."""
        return plan_fit(self._size, *self.data.frame(self._size))

    @property
    def inspected_share(self) -> float:
        """Of the image, from 0 to 1: what lies in the region of interest, and in the frame of a registration."""
        return 1.0 if self.inspected is None else float(self.inspected[self.fit.window].mean())

    @property
    def lost(self) -> bool:
        """Whether registration did not find the part: the image was inspected as it lies, and is not accepted."""
        return self.placement is not None and not self.placement.found

    @property
    def p_value(self) -> float | None:
        """How unusual the score is among good parts: `Reference.p_value`; none where nothing is known of them."""
        return None if self.reference is None else self.reference.p_value(self.score)

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32]:
        """H×W float32 in [0,1], in the image's pixels."""
        return np.clip(self._in_pixels(self.input_map), 0.0, 1.0)

    @cached_property
    def anomaly_mask(self) -> NDArray[np.bool_]:
        """H×W bool: where the smoothed map is above the threshold of `regions`; nothing where there is none."""
        if self.lowest_threshold is None:
            return np.zeros(self._size, bool)
        # Decided at the input size, as the regions are: resizing the map first would lower its peaks.
        above = exceeds(self.smoothed, self.lowest_threshold).astype(np.float32)
        covered = self._in_pixels(above)
        return np.asarray(covered >= min(0.5, float(covered.max()) or 1.0))

    @cached_property
    def regions(self) -> list[Region]:
        """Where the smoothed map is above the review threshold, else the reject threshold; highest peak first.

        Empty for an accepted image and where there is no threshold; boxes and areas in the image's pixels.
        """
        return [] if self.lowest_threshold is None else self.regions_above(self.lowest_threshold)

    def regions_above(
        self, threshold: float, least_area: float = 0.0, within: tuple[int, int, int, int] | None = None
    ) -> list[Region]:
        """Where the smoothed map is above a threshold, highest peak first; the verdict does not depend on it.

        Args:
            threshold: of single pixels, such as half of the model's own to see more of a defect.
            least_area: smaller regions, in pixels of the image, are left out.
            within: (left, top, right, bottom) in pixels of the image, right and bottom exclusive: regions whose peak
                lies elsewhere are left out.
        """
        found = [self._in_image(region) for region in find_regions(self.smoothed, threshold)]
        if within is not None:
            left, top, right, bottom = within
            found = [one for one in found if left <= one.place[0] < right and top <= one.place[1] < bottom]
        return [region for region in found if region.area >= least_area]

    def overlay(self) -> NDArray[np.uint8]:
        """The image with its anomaly map as heat and its regions outlined: H×W×3 uint8 RGB."""
        return overlay(self.image, self.anomaly_map, self.anomaly_mask)

    def save(self, path: str | Path) -> None:
        """Write the overlay as an image file."""
        write_image(Path(path), self.overlay())

    def plot(self) -> Figure:
        """Image, reconstruction, anomaly map and regions as a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        height, width = self.input_map.shape
        image = fit_image(self.image, *self.data.frame((height, width)))
        return prediction_figure(image, self.reconstruction, self.input_map, self.overlay(), self.in_words())

    def _repr_html_(self) -> str:
        return prediction_html(self.overlay(), self.anomaly_map, self.in_words())

    def in_words(self) -> str:
        """Name, verdict, score and how unusual it is."""
        name = "array" if self.path is None else self.path.name
        parts = [f"score {self.score:.4f}"]
        parts += [] if self.threshold is None else [f"threshold {self.threshold:.4f}"]
        parts += [] if self.p_value is None else [f"p-value {self.p_value:.3g}"]
        parts += ["part not found"] if self.lost else []
        return f"{name}: {self.verdict or 'no threshold'} ({', '.join(parts)})"

    def to_dict(self) -> dict[str, Any]:
        """The row that `draem predict` writes, ready for JSON."""
        return {
            "path": str(self.path) if self.path is not None else None,
            "score": self.score,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "verdict": self.verdict,
            "regions": [region.to_dict() for region in self.regions],
            "inspected": self.inspected_share,
            "placement": None if self.placement is None else self.placement.to_dict(),
            "milliseconds": round(self.milliseconds, 3),
        }

    @property
    def _size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def _in_pixels(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values at the size of the input map, in the image's pixels."""
        return unfit_map(values, self._size, *self.data.frame(self._size))

    def _in_image(self, region: Region) -> Region:
        box = unfit_box(region.box, self._size, *self.data.frame(self._size))
        left, top, right, bottom = region.box
        pixels = (box[2] - box[0]) * (box[3] - box[1]) / ((right - left) * (bottom - top))
        (place, *contour) = unfit_places((region.place, *region.contour), self._size, *self.data.frame(self._size))
        area = max(1, round(region.area * pixels))
        return Region(box, area, region.peak, region.mean, place, tuple(contour))
