"""What memory this process has taken, and how the C library treats what is freed.

A step of training frees big blocks and takes them again.
"""

import ctypes
import platform
import sys
from pathlib import Path

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt, from malloc.h


def keep_freed_memory() -> bool:
    """Keep freed blocks in this process instead of handing them back; whether the C library knows how.

    A fresh page costs a fault at its first touch, a tenth to a third of a step. Peak memory stays, but
    memory once used is not given back before the process ends: for programs, not for libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def most_held() -> int | None:
    """The most bytes that this process has held so far; nothing where the system does not tell.

    Not `ru_maxrss` on Linux: there a process inherits it from whoever started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
