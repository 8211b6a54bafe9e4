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


ENCODE = """
import torch
from dpwavelet.comparison.work import peak_memory
from dpwavelet.memory import keep_freed_memory
from dpwavelet.model import Model, find
from dpwavelet.records import tokenize

class Images:
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def batches(self, size):
        for start in range(0, self.count, size):
            yield list(range(start, start + size)), torch.zeros(size, 3, 64, 64, dtype=torch.uint8)
    def captions(self, index):
        return (f"number {index}",)

keep_freed_memory()
torch.set_num_threads(1)
model = Model.from_pretrained(find("thumb"))
def peak_after(batches):
    images = Images(64 * batches)
    tokenize(images, model.tokenizer, model.vocabulary, scales=1, caption_length=8)
    return peak_memory()
before = peak_after(8)
print(peak_after(48) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, another heap")
def test_more_records_take_no_more_memory_to_encode_than_their_tokens() -> None:
    """40 more batches have 0.3 MB of tokens. When each left a small array in the heap they took 700 MB."""
    found = subprocess.run([sys.executable, "-c", ENCODE], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 150e6
