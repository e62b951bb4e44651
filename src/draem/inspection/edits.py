"""What a person may set of a finished model, as `draem set` takes it: thresholds, region of interest, registration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from draem.config.sections import MOST_ANGLE, MOST_SHIFT
from draem.data.interest import merged, read_interest
from draem.data.registration import read_registration, registrar_of
from draem.errors import ConfigError
from draem.modelfile import Header, Profile, RegionOfInterest, Registration, Thresholds
from draem.modelfile.edits import change_header, with_scene, with_thresholds
from draem.settings import nearest, parse_number

KEYS = {
    "threshold": "a number from 0 to 1, or none",
    "review": "a number below the threshold, or none",
    "region": "a mask image (white is inspected), a .json of polygons, or none (the whole image)",
    "ignore": "a mask image (white is not inspected), or none",
    "registration": "an image of a part where it should lie, or none (images are taken as they lie)",
    "registration_shift": "how far it may lie from there, from 0 to 0.5 of the image",
    "registration_angle": "how far it may be turned, from 0 to 180 degrees",
}
"""What can be set, and to what."""
_ALIASES = {"thresholds.reject": "threshold", "thresholds.review": "review"}
_REGISTRATION = {"registration", "registration_shift", "registration_angle"}
_BY_HAND = "set by hand"


def set_values(model: Path, assignments: Iterable[str], profile: str | None = None) -> tuple[Header, Header]:
    """Set values of a model file, all of them or none; its weights stay byte by byte.

    Args:
        model: a model file of any kind.
        assignments: `KEY=VALUE`, with the keys and values of `KEYS`.
        profile: whose threshold and review zone these are; without a threshold it is taken away.

    Returns:
        The header before and after.

    Raises:
        ConfigError: a key is unknown or there twice, or a value does not fit.
        ModelFileError: the file is damaged.
        DraemError: it cannot be written.
    """
    values: dict[str, str] = {}
    for text in assignments:
        key, value = _parted(text)
        if key in values:
            raise ConfigError(f"{key} is set twice")
        values[key] = value
    if not values:
        raise ConfigError(f"nothing to set; give KEY=VALUE: {_known()}")
    if profile is not None and not values.keys() <= {"threshold", "review"}:
        raise ConfigError("a profile has a threshold and a review zone; all else is the same for all: set it without")
    regions: dict[str, RegionOfInterest | None] = {
        key: read_interest(key, values[key]) for key in ("region", "ignore") if key in values
    }

    def change(header: Header) -> Header:
        region = merged(header.region, regions, header.config.data.size) if regions else header.region
        registration = _registration(header, values)
        if (regions or values.keys() & _REGISTRATION) and (registrar := registrar_of(registration, region)) is not None:
            registrar.check()
        header = with_scene(header, region, registration)
        if "threshold" in values or "review" in values:
            own = Profile(thresholds=header.thresholds, reference=header.reference)
            former = own if profile is None else header.profiles.get(profile, Profile())
            header = with_thresholds(header, _thresholds(former.thresholds, values), former.reference, profile)
        return header

    return change_header(model, change)


def _registration(header: Header, values: dict[str, str]) -> Registration | None:
    """The registration with what is given of it."""
    former, data = header.registration, header.config.data
    shift = _limit("registration_shift", values, former.shift if former else data.registration_shift, MOST_SHIFT)
    angle = _limit("registration_angle", values, former.angle if former else data.registration_angle, MOST_ANGLE)
    path = values.get("registration")
    if path is not None and path.lower() == "none" and len(values.keys() & _REGISTRATION) > 1:
        raise ConfigError("registration=none: its limits say nothing then; leave them out")
    if path is None and former is None and values.keys() & _REGISTRATION:
        raise ConfigError("registration: there is none whose limits these are; set registration=IMAGE too")
    if path is not None:
        return None if path.lower() == "none" else read_registration(Path(path), data, shift, angle)
    return former and former.model_copy(update={"shift": shift, "angle": angle})


def _limit(key: str, values: dict[str, str], former: float, most: float) -> float:
    value = _number(key, values[key], most) if key in values else former
    if value is None:
        raise ConfigError(f"{key}=none: give {KEYS[key]}")
    return value


def _parted(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    key = _ALIASES.get(key.strip(), key.strip())
    if key not in KEYS or not equals:
        near = nearest(key, KEYS)
        meant = f"did you mean {near}?" if near and key not in KEYS else f"there is {_known()}"
        raise ConfigError(f"{text[:60]!r} sets nothing; {meant}")
    if not value.strip():
        raise ConfigError(f"{key}: no value; give {KEYS[key]}")
    return key, value.strip()


def _known() -> str:
    return "; ".join(f"{key}={words}" for key, words in KEYS.items())


def _thresholds(former: Thresholds | None, values: dict[str, str]) -> Thresholds | None:
    reject, review = (former.reject, former.review) if former else (None, None)
    if "threshold" in values:
        reject = _number("threshold", values["threshold"])
    if "review" in values:
        review = _number("review", values["review"])
    if reject is None:
        if "review" in values and review is not None:
            raise ConfigError("review: there is no threshold for it to lie below; set threshold=… too")
        return None
    if review is not None and review >= reject:
        raise ConfigError(
            f"review {review:g} does not lie below the threshold {reject:g}: give a lower one, a higher threshold, or "
            "review=none"
        )
    chosen_on = _chosen_on(former, "threshold" in values)
    if former is None or "threshold" in values:
        return Thresholds(reject=reject, review=review, chosen_on=chosen_on)
    changes = {"review": review, "review_promise": None, "chosen_on": chosen_on}
    return former.model_copy(update=changes)


def _chosen_on(former: Thresholds | None, by_hand: bool) -> str:
    """What the thresholds were chosen on; where the review zone alone is set, the threshold keeps its words."""
    if former is None or by_hand:
        return _BY_HAND
    words = former.chosen_on.split("; review: ")[0]  # what that promised is over
    return words if _BY_HAND in words else f"{words}; review {_BY_HAND}"


def _number(key: str, text: str, most: float = 1.0) -> float | None:
    if text.lower() == "none":
        return None
    try:
        value = parse_number(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ConfigError(f"{key}={text[:40]}: give {KEYS[key]}")
    return value
