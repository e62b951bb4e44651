"""How many CPU threads a training takes, of torch and of OpenCV, which blurs in its losses."""

from __future__ import annotations

import cv2
import torch


def use_threads(count: int) -> None:
    """So many from here on, in the whole process."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
