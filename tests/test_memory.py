"""Freed memory is kept: after a while, taking it again costs no page faults."""

import platform
import subprocess
import sys

import pytest

TOUCH = """
import resource, sys
import torch
from dpwavelet.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch():
    torch.ones(64 << 20, dtype=torch.uint8)
for _ in range(40):  # until the places of small blocks between them have settled
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    found = subprocess.run([sys.executable, "-c", TOUCH, way], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt to ask")
def test_a_block_taken_again_causes_few_page_faults() -> None:
    assert 10 * faults("keep") < faults("hand back")
