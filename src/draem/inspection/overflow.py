"""Whether int8 is exact on this machine: x86 without VNNI adds its products up in 16 bits, where they overflow.

Nothing tells it on every system, so it is tried: one convolution whose every sum is as large as can be.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from draem.errors import ConfigError

PROBE = zlib.decompress(
    base64.b85decode(
        b"c-rljK}y6h7=`<%S;SwFGz@MAMZ3%qR1h+*%52=a>!d}xX{lAyc4NIkJ=I*xKZ=6b8<;OV0(p;@?Gxg1zrs_59-%`R73<sd`0hEcpQ^FkR&|"
        b"*_;yKdmk6)znwrqbVE)X0t*O4gVmLdt26yz5QY|1xH{eou*7FqMvYZw2u?RNl%zoiNu^q~X;UB=(0=}HU942&5>dR9WxiA5}911_7?YakE^1"
        b"OkD;KSLkUQlgEPan9gcAJ8tMwdS|dr_qq{KFgc?HH|@af-3<^A`?LJH+t>J92QLBWjIDM`2ZEJz90"
    )
)
"""An ONNX model in int8: ones of 1×16×10×10 in; out, 16·9 times the one, or half of it where sums overflow."""


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def overflows(run: Run) -> bool:
    """Whether sums of int8 overflow in what runs `PROBE`."""
    return float(run(np.ones((1, 16, 10, 10), np.float32)).mean()) < 0.9 * 16 * 9


def exact_settings(runtime: str, emulating: dict[str, str], running: Callable[[dict[str, str]], Run]) -> dict[str, str]:
    """What a runtime is to be told for exact int8: nothing, or where that overflows, to compute in floating point.

    Args:
        runtime: its name and version.
        emulating: what makes it do so.
        running: runs `PROBE` with such settings.

    Raises:
        ConfigError: that cannot be found out, or it overflows all the same.
    """
    try:
        for settings in ({}, emulating):
            if not overflows(running(settings)):
                return settings
    except Exception as error:  # the runtimes' errors share no base but this
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"int8: {runtime} cannot run it here ({reason}); export in fp32") from None
    raise ConfigError(f"int8 overflows on this processor in {runtime}; export in fp32")
