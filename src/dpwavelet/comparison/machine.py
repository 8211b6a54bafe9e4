"""What a cell was computed on."""

import os
import platform
import re
from pathlib import Path

import torch

from dpwavelet.precision import multiplies_bfloat16
from dpwavelet.ranks import device_named


def machine(device: str = "cpu") -> str:
    """GPU if it computes on one, processor, cores, library: the kind of machine, without its name."""
    used = device_named(device)
    gpu = f"{torch.cuda.get_device_name(used)}, " if used.type == "cuda" else ""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.is_file() else []
    processor = names[0] if names else platform.machine()
    wide = "" if multiplies_bfloat16(used.type) else ", no products of bfloat16"
    return f"{gpu}{processor}, {os.cpu_count()} cores{wide}, torch {torch.__version__}"
