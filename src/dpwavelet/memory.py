"""How the C library treats freed memory. A step of training frees big blocks and takes them again."""

import ctypes
import platform

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
