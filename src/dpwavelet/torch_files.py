"""Tensors out of files of others, without running any code from them: `.npz` of NumPy, `.pt` and `.pth`.

What `torch.save` writes is a zip file with a pickle that says how raw storages become tensors, and a pickle
may name any function to call. Here it may name those that make up a dict of tensors and nothing else, and
each of them is a stand-in of ours: nothing of torch is called by the file. Everything is bounded by the size
of the file, or by a number below.

Tensors that shared a storage share it still. They are on the CPU, whatever device they were saved from.
"""

import io
import math
import pickle
import pickletools
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ModelError

Tree = dict[Any, Any]  # nested: tensors, numbers, texts, None, lists and dicts of these

LARGEST_ARRAYS = 1 << 29  # bytes; published networks have up to 300 million
LARGEST_PICKLE = 64 << 20  # bytes; that of a model with thousands of tensors has one megabyte
MOST_VALUES = 1 << 18  # in the tree, repeated ones counted each time
DEEPEST = 32
LARGEST_NUMBER = 64  # bits of a whole number
MOST_SHARED = 4  # times that all tensors together may be what their storages are
LARGEST_TUPLE = 1024  # values, those of tuples inside it counted each time
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What the pickler of torch.save writes for dicts, lists, numbers and texts, in protocols 2 to 4.
OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT",
    "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE",
    "BUILD",
}  # fmt: skip
# What may name a value of a dict: by numbers this short and by texts nobody makes a dict slow.
NAMES = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE")
NAME, MARK = -1, 0  # what they are on the stack, and a mark; of all else it tells how large it is
UNREADABLE = (
    OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError, ArithmeticError, AttributeError,
    ImportError, LookupError, MemoryError, RecursionError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def read_torch_file(path: Path) -> Tree:
    """The nested dict of tensors, numbers and texts that `torch.save` wrote.

    Guarantee: whatever the file holds, no code from it runs, and no more is read than its size. A file that
    needs anything else is a ModelError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Reader(archive, path).read()
    except ModelError:
        raise
    except UNREADABLE as error:
        raise ModelError(
            f"{path} is no file of plain tensors as torch.save writes them: {error or 'it is damaged'}. If "
            "you trust it, save its tensors as safetensors where it came from."
        ) from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}; a dict of tensors is wanted.")
    return found


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The plain arrays of an `.npz` file, LARGEST_ARRAYS bytes at most; anything else is a ModelError."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(record.file_size for record in archive.infolist())
        if size > LARGEST_ARRAYS:
            raise ValueError(f"it unpacks to {size:,} bytes, and at most {LARGEST_ARRAYS:,} are read")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*UNREADABLE, zlib.error) as error:
        raise ModelError(f"{path} does not hold plain arrays: {error or 'it is damaged'}.") from error


class _Name:
    """Something that a pickle may name. It has no attribute that a pickle could change."""

    __slots__ = ("_name",)
    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(f"a pickle may not change {self._name}")

    def __repr__(self) -> str:
        return str(self._name)


class _Kind(_Name):
    """A type of storage."""

    __slots__ = ()

    @property
    def dtype(self) -> torch.dtype:
        return STORAGES[self._name]


class _Rebuild(_Name):
    """Stands for the functions that make a tensor from a storage; makes a note of what was asked."""

    __slots__ = ()

    def __call__(self, *asked: Any) -> "_View":
        if self._name == "_rebuild_parameter":
            value = asked[0]
            if not isinstance(value, _View):
                raise TypeError("a parameter is made of something that is no tensor")
            return value
        storage, offset, shape, strides, *_ = asked
        return _View(storage, offset, tuple(shape), tuple(strides))


@dataclass(frozen=True, slots=True)
class _Stored:
    """One storage of a file, by the name of its record."""

    key: str
    kind: _Kind
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor to be made: so many elements of a storage, from `offset` on, `strides` apart."""

    storage: _Stored
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def checked(self) -> "_View":
        """Itself, if it stays within its storage."""
        if not isinstance(self.storage, _Stored):
            raise ValueError("a tensor is made of something that is no storage")
        numbers = (self.offset, *self.shape, *self.strides)
        if len(numbers) > 128 or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
            raise ValueError("a tensor has an offset, a shape or strides that no tensor has")
        if len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor has shape {self.shape} and strides {self.strides}")
        size = math.prod(self.shape)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if self.offset > self.storage.count or (size and last >= self.storage.count):
            raise ValueError(f"a tensor ends at {last}, its storage at {self.storage.count}")
        if size > self.storage.count:
            raise ValueError(f"a tensor has {size} elements and its storage only {self.storage.count}")
        return self


class _Unpickler(pickle.Unpickler):
    """Knows the names that a dict of tensors needs."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, or a refusal."""
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Rebuild(name)
        if module == "torch" and name in STORAGES:
            return _Kind(name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which plain tensors don't need")

    def persistent_load(self, asked: Any) -> _Stored:
        """A storage as the pickle names it: its type, its record, its device and its elements."""
        what, kind, key, _, count = asked
        wrong = what != "storage" or not isinstance(kind, _Kind) or type(key) is not str
        if wrong or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("it asks for something that is no storage of plain tensors")
        return _Stored(key, kind, count)


def _ordered() -> OrderedDict[Any, Any]:
    """An empty one, as torch.save begins it; what a pickle would fill it with at once is not looked at."""
    return OrderedDict()


class _Reader:
    """One open file."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        records = archive.infolist()
        if twice := [name for name, count in Counter(archive.namelist()).items() if count > 1]:
            raise ModelError(f"{path} holds {twice[0]} twice; it is not as torch.save writes it.")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ModelError(f"{path} is compressed, which torch.save never does; it is refused.")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ModelError(f"{path} claims to hold more than its size; it is damaged or made to harm.")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise ModelError(f"{path} is a zip file, but none that torch.save wrote: it lacks a data.pkl.")
        self.root = pickles[0].removesuffix("data.pkl")
        self.storages: dict[str, tuple[torch.dtype, Tensor]] = {}
        self.values = self.size = 0
        self.largest = MOST_SHARED * sum(record.file_size for record in records)

    def read(self) -> Any:
        """What the pickle describes."""
        if self.root + "byteorder" in self.archive.namelist():
            order = self.archive.read(self.root + "byteorder").decode("ascii")
            if order != sys.byteorder:
                raise ValueError(f"its bytes are {order}-endian, and this machine's are not")
        if self.archive.getinfo(self.root + "data.pkl").file_size > LARGEST_PICKLE:
            raise ValueError(f"its pickle is larger than {LARGEST_PICKLE >> 20} MB")
        content = self.archive.read(self.root + "data.pkl")
        _check_opcodes(content)
        return self._built(_Unpickler(io.BytesIO(content)).load(), 0)

    def _built(self, value: Any, depth: int) -> Any:
        """The tree with every note turned into its tensor."""
        self.values += 1
        if self.values > MOST_VALUES or depth > DEEPEST:
            raise ValueError("it holds too many values, or too deep ones")
        if isinstance(value, _View):
            return self._tensor(value.checked())
        if isinstance(value, Mapping):
            return {self._key(name): self._built(inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._built(inner, depth + 1) for inner in value]
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise ValueError(f"it holds a {type(value).__name__}, which is no tensor, number or text")

    def _key(self, name: Any) -> str | int:
        if type(name) not in (str, int):
            raise ValueError(f"it names a value by a {type(name).__name__}")
        return name  # type: ignore[no-any-return]  # one of the two

    def _tensor(self, view: _View) -> Tensor:
        self.size += math.prod(view.shape) * view.storage.kind.dtype.itemsize
        if self.size > self.largest:
            raise ValueError(f"its tensors are more than {MOST_SHARED} times as large as its storages")
        return self._storage(view.storage).as_strided(view.shape, view.strides, view.offset)

    def _storage(self, stored: _Stored) -> Tensor:
        """All elements of a storage, read once."""
        dtype = stored.kind.dtype
        if stored.key not in self.storages:
            self.storages[stored.key] = (dtype, self._record(stored, dtype))
        known, tensor = self.storages[stored.key]
        if known != dtype or len(tensor) != stored.count:
            raise ValueError(f"storage {stored.key} is described in two ways")
        return tensor

    def _record(self, stored: _Stored, dtype: torch.dtype) -> Tensor:
        record = self.archive.getinfo(f"{self.root}data/{stored.key}")
        wanted = stored.count * dtype.itemsize
        if record.file_size != wanted:
            raise ValueError(f"storage {stored.key} has {record.file_size} bytes, not {wanted}")
        if not wanted:
            return torch.empty(0, dtype=dtype)
        content = bytearray(wanted)
        with self.archive.open(record) as file:
            _fill(content, file)
        raw = torch.frombuffer(content, dtype=torch.uint8 if dtype == torch.bool else dtype)
        return raw != 0 if dtype == torch.bool else raw


def weights_in(
    tree: Mapping[Any, Any], wrappers: Sequence[str], prefixes: Sequence[str]
) -> dict[str, Tensor]:
    """The tensors of a network by name, without the dict around them and what all names begin with."""
    inner = next((tree[name] for name in wrappers if isinstance(tree.get(name), dict)), tree)
    found = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    for prefix in prefixes:
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _fill(content: bytearray, file: IO[bytes]) -> None:
    """Read all of `content`; the end of the file checks its sum."""
    place = memoryview(content)
    while place:
        count = file.readinto(place)  # type: ignore[attr-defined]  # zipfile's reader has it
        if not count:
            raise EOFError("a record ends too early")
        place = place[count:]
    if file.read(1):
        raise ValueError("a record is longer than it says")


def _check_opcodes(content: bytes) -> None:
    """Refuse what no dict of tensors needs, places in the memo that would take memory to reach, huge tuples.

    A tuple that holds one tuple twice, and so on, is short in a file; whoever takes it for a name computes
    with all that it would be if it were written out. And whoever may choose long numbers or tuples for names
    can have all of them fall into one place of a dict, which then takes the square of their number.
    """
    leaves: list[int] = []  # of what lies on the stack: NAME, MARK, or a size
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in OPCODES:
            raise ValueError(f"its pickle does {opcode.name}, which plain tensors don't need")
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            if (place := int(argument or 0)) > len(content):
                raise ValueError("its pickle numbers its values without order")
            memo[place] = leaves[-1]
            continue
        if opcode.name == "LONG1" and int(argument or 0).bit_length() > LARGEST_NUMBER:
            raise ValueError(f"its pickle holds a whole number of more than {LARGEST_NUMBER} bits")
        taken = _taken(leaves, opcode)
        if opcode.name in ("SETITEM", "SETITEMS"):
            pairs = taken[:2] if opcode.name == "SETITEM" else taken  # each value before its name
            if any(name != NAME for name in pairs[1::2]):
                raise ValueError("its pickle names a value by something that is no text or whole number")
        if opcode.name in ("BINGET", "LONG_BINGET"):
            leaves.append(memo[int(argument or 0)])
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = taken[0]
            leaves += taken
        else:
            size = 1 + sum(map(abs, taken)) if "TUPLE" in opcode.name else 1
            if size > LARGEST_TUPLE:
                raise ValueError(f"its pickle holds a tuple of more than {LARGEST_TUPLE} values")
            kind = MARK if opcode.name == "MARK" else NAME if opcode.name in NAMES else size
            leaves += [kind for _ in opcode.stack_after]


def _taken(leaves: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take off the stack what an opcode takes, and return it without the mark and what lies under that."""
    needed = opcode.stack_before
    if pickletools.markobject not in needed:
        if len(leaves) < len(needed):
            raise ValueError("its pickle takes values that it does not have")
        return [leaves.pop() for _ in needed]
    taken = []
    while size := leaves.pop():
        taken.append(size)
    for _ in range(needed.index(pickletools.markobject)):
        leaves.pop()
    return taken
