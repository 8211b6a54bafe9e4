"""Files of torch.save give back what torch.load would, and nothing in them is run."""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpwavelet.errors import ModelError
from dpwavelet.torch_files import read_torch_file

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def same(found: Any, wanted: Any) -> bool:
    """Whether two trees hold the same bits under the same names."""
    if isinstance(wanted, Tensor):
        return found.dtype == wanted.dtype and torch.equal(found, wanted.detach())
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def zipped(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A file of torch.save with other records; the root folder is cut from their names."""
    with zipfile.ZipFile(path) as archive:
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(records)
    return zipped(path, {f"x/{name}": content for name, content in records.items()})


class TestReading:
    """What torch.save wrote."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_type_of_number_comes_back(self, dtype: torch.dtype, tmp_path: Path) -> None:
        values = torch.randint(0, 2 if dtype == torch.bool else 100, (3, 5)).to(dtype)
        tree = {"values": values, "turned": values.T, "none": values[:0], "one": values[0, 0]}
        assert same(read_torch_file(saved(tmp_path / "x.pt", tree)), tree)

    def test_nested_dicts_numbers_texts_and_lists_come_back(self, tmp_path: Path) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))
        tree = {
            "params_ema": network.state_dict(),
            "model": {"weight": nn.Parameter(torch.ones(2, 2))},
            "steps": 12, "huge": 2**40, "rate": 0.5, "name": "näm", "done": True, "none": None,
            "sizes": [1, 2, [3]], 7: "seven",
        }  # fmt: skip
        found = read_torch_file(saved(tmp_path / "x.pth", tree))
        assert same(found, tree)
        assert type(found["params_ema"]) is dict

    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_every_protocol_of_pickles_is_read(self, protocol: int, tmp_path: Path) -> None:
        tree = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b={"c": torch.ones(1)})
        assert same(read_torch_file(saved(tmp_path / "x.pt", tree, pickle_protocol=protocol)), dict(tree))

    def test_views_keep_their_place_in_a_storage_and_share_it(self, tmp_path: Path) -> None:
        whole = torch.arange(24.0)
        tree = {"whole": whole, "part": whole[4:10], "grid": whole.reshape(4, 6)[1:, ::2].T}
        found = read_torch_file(saved(tmp_path / "x.pt", tree))
        assert same(found, tree)
        assert found["grid"].stride() == tree["grid"].stride()
        found["whole"][7] = -1
        assert found["part"][3] == -1

    def test_it_agrees_with_torch_on_a_whole_optimizer(self, tmp_path: Path) -> None:
        network = nn.Linear(3, 3)
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        path = saved(tmp_path / "x.pt", {"model": network.state_dict(), "optimizer": optimizer.state_dict()})
        assert same(read_torch_file(path), torch.load(path, weights_only=True))


class TestRefusals:
    """Everything else."""

    def refused(self, path: Path, words: str) -> None:
        with pytest.raises(ModelError, match=words):
            read_torch_file(path)

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_a_pickle_that_runs_a_command_is_refused_and_not_run(self, protocol: int, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        path = saved(tmp_path / "x.pt", {"a": torch.ones(1), "b": Evil(mark)}, pickle_protocol=protocol)
        self.refused(path, r"it names (posix|nt)\.system")
        assert not mark.exists()
        pickle.loads(pickle.dumps(Evil(mark)))  # the twin: it does run where it is unpickled
        assert mark.exists()

    @pytest.mark.parametrize(
        ("pickled", "words"),
        [
            (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "names builtins.eval"),
            (b"ctorch\nload\n.", "names torch.load"),
            (b"ctorch._utils\n_rebuild_qtensor\n.", "names torch._utils._rebuild_qtensor"),
            (b"ctorch\nComplexFloatStorage\n.", "names torch.ComplexFloatStorage"),
            (b"\x80\x02(i__main__\nx\n.", "does INST"),
            (b"\x80\x02}\x81.", "does NEWOBJ"),
            (b"\x80\x02\x82\x01.", "does EXT1"),
            (b"\x80\x02}r\xff\xff\xff\x7f.", "without order"),
            (b"\x80\x02ctorch\nFloatStorage\n}X\x01\x00\x00\x00ak\x00b.", "no file of plain tensors"),
            (b"\x80\x02}X\x01\x00\x00\x00aC\x01xs.", "does SHORT_BINBYTES"),
            (b"\x80\x02]q\x00h\x00a.", "too deep"),
            (b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(24)) + b".",
             "too many"),
            (b"\x80\x02K\x05.", "holds a int"),
            (b"\x80\x02}K\x05Q.", "no file of plain tensors"),
            (b"\x80\x02}K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x01s.",
             "tuple of more than 1024"),
            (b"\x80\x02K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Q.",
             "tuple of more than 1024"),
            (b"\x80\x02}K\x01\x85K\x01s.", "no text or whole number"),
            (b"\x80\x02}(K\x01K\x02K\x01\x85K\x01u.", "no text or whole number"),
            (b"\x80\x02}(NK\x02u.", "no text or whole number"),
            (b"\x80\x02}\x8a\x09" + b"\x01" * 9 + b"K\x01s.", "more than 64 bits"),
            (b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R.", "no file of plain tensors"),
            (b"\x80\x02}\x86.", "does not have"),
            (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))tR.", "something that is no storage"),
            (b"\x80\x02ctorch._utils\n_rebuild_parameter\n(K\x01tR.", "something that is no tensor"),
            (b"", "no file of plain tensors"),
        ],
    )  # fmt: skip
    def test_a_pickle_of_something_else_is_refused(self, pickled: bytes, words: str, tmp_path: Path) -> None:
        self.refused(zipped(tmp_path / "x.pt", {"x/data.pkl": pickled}), words)

    def test_a_pickle_can_change_none_of_the_names_that_it_may_use(self, tmp_path: Path) -> None:
        state = b"NX\x05\x00\x00\x00_nameX\x0c\x00\x00\x00FloatStorage"
        build = b"\x80\x02ctorch\nHalfStorage\n" + state[:1] + b"}" + state[1:] + b"s\x86b."
        self.refused(zipped(tmp_path / "x.pt", {"x/data.pkl": build}), "may not change")

    @pytest.mark.parametrize(
        ("shape", "strides", "offset", "words"),
        [
            ((2, 3), (3, 1), 1, "ends at 6, its storage at 6"),
            ((2, 3), (4, 1), 0, "ends at 6"),
            ((1,), (1,), 2**62, "ends at"),
            ((7,), (0,), 0, "7 elements and its storage only 6"),
            ((2, 3), (-3, 1), 3, "that no tensor has"),
            ((2,), (1, 1), 0, "shape .* and strides"),
            ((0,), (1,), 7, "its storage at 6"),
        ],
    )
    def test_a_tensor_that_leaves_its_storage_is_refused(
        self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, words: str, tmp_path: Path
    ) -> None:
        class Told:
            def __reduce__(self) -> tuple[Any, ...]:
                storage = torch.arange(6.0).untyped_storage()
                typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
                return torch._utils._rebuild_tensor_v2, (typed, offset, shape, strides, False, OrderedDict())

        self.refused(saved(tmp_path / "x.pt", {"a": Told()}), words)

    def test_a_shape_of_endless_numbers_is_refused_before_it_is_multiplied(self, tmp_path: Path) -> None:
        huge = b"\x8a\xff" + b"\x7f" * 255  # LONG1
        storage = (
            b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
        )
        pickled = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K\x00"
        pickled += b"(" + huge + b"q\x01" + b"h\x01" * 99 + b"t" + b"(" + b"K\x00" * 100 + b"ttR."
        path = zipped(tmp_path / "x.pt", {"x/data.pkl": pickled, "x/data/0": bytes(4)})
        self.refused(path, "more than 64 bits")

    def test_tensors_that_are_many_times_their_storage_are_refused(self, tmp_path: Path) -> None:
        """Whoever makes each a tensor of its own, as a network does, takes the memory of all."""
        whole = torch.zeros(100_000)
        tied = {f"{place}": whole for place in range(4)}
        assert len(read_torch_file(saved(tmp_path / "x.pt", tied))) == 4
        many = {f"{place}": whole for place in range(6)}
        self.refused(saved(tmp_path / "x.pt", many), "more than 4 times as large")

    def test_a_damaged_or_cut_file_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"a": torch.arange(1000.0)})
        content = path.read_bytes()
        for size in (0, 10, len(content) // 2, len(content) - 30):
            path.write_bytes(content[:size])
            self.refused(path, r"x\.pt")
        place = content.index(torch.arange(1000.0).numpy().tobytes()) + 8
        path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        self.refused(path, "CRC")
        self.refused(tmp_path / "absent.pt", "absent")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda r: r.pop("data/0"), "no item named"),
            (lambda r: r.update({"data/0": r["data/0"] + b"0"}), "has 25 bytes, not 24"),
            (lambda r: r.update({"data/0": r["data/0"][:-1]}), "has 23 bytes, not 24"),
            (lambda r: r.update({"byteorder": b"big"}), "big-endian"),
            (lambda r: r.pop("data.pkl"), "lacks a data.pkl"),
        ],
    )
    def test_records_that_do_not_fit_are_refused(
        self, change: Callable[[dict[str, bytes]], None], words: str, tmp_path: Path
    ) -> None:
        self.refused(changed(saved(tmp_path / "x.pt", {"a": torch.arange(6.0)}), change), words)

    def test_archives_made_to_harm_are_refused(self, tmp_path: Path) -> None:
        bomb = {"x/data.pkl": b"\x80\x02}.", "x/data/0": bytes(1 << 20)}
        self.refused(zipped(tmp_path / "x.pt", bomb, zipfile.ZIP_DEFLATED), "compressed")
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02}.")
            archive.writestr("x/data.pkl", b"\x80\x02].")
        self.refused(tmp_path / "x.pt", "twice")
        content = zipped(
            tmp_path / "y.pt", {"x/data.pkl": b"\x80\x02}.", "x/data/0": bytes(900)}
        ).read_bytes()
        directory = content.rindex(b"PK\x01\x02")  # the last entry says that it holds a gigabyte
        claimed = (1 << 30).to_bytes(4, "little") * 2
        (tmp_path / "y.pt").write_bytes(content[: directory + 20] + claimed + content[directory + 28 :])
        self.refused(tmp_path / "y.pt", "more than its size")

    def test_the_old_format_without_a_zip_is_refused_with_advice(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "x.pt", {"a": torch.ones(1)}, _use_new_zipfile_serialization=False)
        self.refused(path, "save its tensors as safetensors")

    @pytest.mark.parametrize("value", [torch.ones(2), [torch.ones(2)], 5])
    def test_anything_but_a_dict_at_the_top_is_refused(self, value: Any, tmp_path: Path) -> None:
        self.refused(saved(tmp_path / "x.pt", value), "a dict of tensors is wanted")

    @pytest.mark.parametrize(
        "value", [torch.zeros(1).to_sparse(), torch.zeros(2, dtype=torch.complex64), b"x"]
    )
    def test_values_of_other_kinds_are_refused(self, value: Any, tmp_path: Path) -> None:
        self.refused(saved(tmp_path / "x.pt", {"a": value}), "no file of plain tensors")
