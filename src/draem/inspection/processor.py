"""What this machine computes with: its processor's name, cores that may be used, and arithmetic in bf16."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

_BF16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
"""Flags of processors that compute in bf16: three of x86, one of ARM."""


@cache
def processor_name() -> str:
    """The processor's own name where the system tells it, else its family."""
    named = re.search(r"^model name\s*:\s*(.+)$", _told(), re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


@cache
def lacks_bf16() -> bool:
    """Whether the processor is known to compute nothing in bf16: what is asked for in bf16 is emulated, slowly."""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _told(), re.MULTILINE)
    return flags is not None and not _BF16 & set(flags[1].split())


def usable_cores() -> int:
    """Cores that this process may use; containers and `taskset` leave it fewer than there are."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@cache
def _told() -> str:
    """What Linux says of its processors; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
