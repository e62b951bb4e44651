"""Named starting points: `official` and `paper` setting by setting, and ours.

What a preset does not name keeps the default of its field in `config/`.
"""

from __future__ import annotations

from typing import Any

_PUBLISHED_NETWORK = {"reconstructive_width": 128, "discriminative_width": 64, "aligned_corners": True}

_OFFICIAL: dict[str, Any] = {
    # Every good image trains: the published code has no validation and no threshold.
    "data": {
        "size": 256,
        "channels": 3,
        "depth": 8,
        "fit": "resize",
        "interpolation": "linear",
        "select_share": 0.0,
        "calibrate_share": 0.0,
    },
    "simulation": {
        "clean_share": 0.5,
        "mask_threshold": [0.5, 0.5],
        "lattice": [0, 5],
        "mask_rotation": 90.0,
        "allow_empty": True,
        "augmentations_drawn": 3,
        "source_colour": "rgb",
        "beta": [0.0, 0.8],
        "rotation": {"degrees": 90.0, "probability": 0.3, "corners": "black"},
    },
    "network": _PUBLISHED_NETWORK,
    "training": {
        "epochs": 700,
        "batch_size": 8,
        "sampling": "replacement",
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "schedule": "steps",
        "milestones": [0.8, 0.9],
        "factor": 0.2,
        "ssim_weight": 1.0,
        "focal_gamma": 2.0,
        "precision": "fp32",
    },
    "score": {"filter_size": 21},
}

_PAPER: dict[str, Any] = {
    **_OFFICIAL,
    "simulation": {
        **_OFFICIAL["simulation"],
        # "Sampled uniformly at random", without bounds: here where masks are neither empty nor everything.
        "mask_threshold": [0.2, 0.8],
        "allow_empty": False,
        "augmentations": [
            "posterize",
            "sharpness",
            "solarize",
            "equalize",
            "brightness",
            "hue_saturation",
            "autocontrast",
        ],
        "beta": [0.0, 0.9],
        "rotation": {"degrees": 45.0, "probability": 1.0, "corners": "black"},
    },
    "training": {
        **_OFFICIAL["training"],
        "sampling": "shuffle",
        "milestones": [4 / 7, 6 / 7],
        "factor": 0.1,
    },
}


def _ours(
    reconstructive_width: int, discriminative_width: int, images: int, learning_rate: float, ssim_scales: int = 1
) -> dict[str, Any]:
    """Our recipe at a width: large masks, varied light, folded pixels, Muon, one cycle, averaged weights, joint map."""
    return {
        "simulation": {"mask_threshold": [0.1, 0.6], "clean_share": 0.5, "beta": [0.0, 0.8], "lighting": 0.1},
        "network": {
            "reconstructive_width": reconstructive_width,
            "discriminative_width": discriminative_width,
            "fold": "auto",
            "levels": "auto",
            "aligned_corners": False,
        },
        "training": {
            "images": images,
            "batch_size": 8,
            "optimizer": "muon",
            "learning_rate": learning_rate,
            "weight_decay": 1e-4,
            "schedule": "one_cycle",
            "clip_norm": 1.0,
            "ema": 0.02,
            "ssim_scales": ssim_scales,
        },
        "score": {"map": "joint", "filter_size": 7},
    }


PRESETS: dict[str, dict[str, Any]] = {
    "edge": _ours(16, 8, images=8_000, learning_rate=2e-3, ssim_scales=3),
    "fast": _ours(32, 16, images=8_000, learning_rate=1e-3),
    "standard": _ours(64, 32, images=24_000, learning_rate=5e-4),
    "large": _ours(128, 64, images=48_000, learning_rate=2e-4),
    "official": _OFFICIAL,
    "paper": _PAPER,
}
