"""Parts of a drawn set written by several processes, which change no byte: both ends of their conversation.

A worker is this module run as a program (`python -m dpwavelet.images.portrait_workers FOLDER SEED SIZE`).
For every line "START COUNT" that it reads it writes those files and answers with a line of JSON; it ends
when its input does, so none outlives its caller. Threads would not do: a layer of a few small pictures is a
hundred short calls of numpy, between which they wait for one another. `multiprocessing` would run a caller's
script a second time in each worker. Torch is not imported here: it would take longer than drawing a thousand
portraits.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from dpwavelet.errors import OutputError
from dpwavelet.images.portrait_files import write_part

_PROGRAM = ("-P", "-m", "dpwavelet.images.portrait_workers")  # -P: import nothing from the current folder
_PARTS_WORTH_A_WORKER = 4  # a worker starts in less than the time of two parts of 128 small pictures
_AHEAD = 4  # parts under way or waiting to be read for each worker

Part = tuple[int, int]  # the first portrait and how many


def worthwhile(parts: int) -> int:
    """How many workers repay their start: at most one a processor; 1 means that the caller draws alone."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, parts // _PARTS_WORTH_A_WORKER))


@contextmanager
def written(
    folder: Path, parts: Sequence[Part], seed: int, size: int, workers: int
) -> Iterator[Iterator[list[str]]]:
    """Yield the lines of metadata of every part, in order; leaving early stops all work at once.

    No worker lives on after the context, however it ends. What the system refuses a worker is an OSError
    here, and a worker that dies is an OutputError.
    """
    if workers == 1:
        yield (write_part(folder, start, count, seed, size) for start, count in parts)
        return
    idle = SimpleQueue[subprocess.Popen[str]]()

    def write(part: Part) -> list[str]:
        process = idle.get()
        try:
            return _ask(process, part)
        finally:
            idle.put(process)

    with ThreadPoolExecutor(workers) as waiting, ExitStack() as processes:
        for _ in range(workers):
            idle.put(processes.enter_context(_worker(folder, seed, size)))
        yield _in_order(waiting, write, parts, _AHEAD * workers)


@contextmanager
def _worker(folder: Path, seed: int, size: int) -> Iterator[subprocess.Popen[str]]:
    """A process that answers requests; it ends with the context."""
    process = subprocess.Popen(
        [sys.executable, *_PROGRAM, str(folder), str(seed), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C is for the caller, who then ends the workers
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(OSError):  # it may hold a request that nobody read
            process.stdin.close()


def _ask(worker: subprocess.Popen[str], part: Part) -> list[str]:
    """Have one part written; returns its lines of metadata."""
    assert worker.stdin is not None and worker.stdout is not None
    with suppress(OSError):  # of a worker that is dead: then there is no answer either
        worker.stdin.write(f"{part[0]} {part[1]}\n")
        worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise OutputError(
            f"a process that draws ended early (status {worker.wait()}), so nothing was written; "
            "see whether memory ran out, and draw again."
        )
    reply = json.loads(answer)
    if "refused" in reply:
        raise OSError(*reply["refused"])
    lines: list[str] = reply["lines"]
    return lines


def _in_order(
    pool: ThreadPoolExecutor, write: Callable[[Part], list[str]], parts: Iterable[Part], ahead: int
) -> Iterator[list[str]]:
    """Results in the order of the parts, of which at most `ahead` are under way."""
    under_way = deque[Future[list[str]]]()
    for part in parts:
        under_way.append(pool.submit(write, part))
        if len(under_way) == ahead:
            yield under_way.popleft().result()
    for future in under_way:
        yield future.result()


def answers(requests: Iterable[str], folder: Path, seed: int, size: int) -> Iterator[str]:
    """The worker's end: one line of JSON for each request."""
    for request in requests:
        start, count = map(int, request.split())
        reply: dict[str, object]
        try:
            reply = {"lines": write_part(folder, start, count, seed, size)}
        except OSError as error:
            reply = {"refused": [error.errno, error.strerror]}
        yield json.dumps(reply) + "\n"


if __name__ == "__main__":
    for answer in answers(sys.stdin, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
        sys.stdout.write(answer)
        sys.stdout.flush()
