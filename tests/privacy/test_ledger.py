"""A ledger keeps everything in order, shows any change to its past, and charges before steps are taken."""

import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dpwavelet import cli
from dpwavelet.errors import ConfigError, OutputError, PrivacyError
from dpwavelet.privacy import ledger as module
from dpwavelet.privacy.ledger import GENESIS, Ledger

PLAN = {"epsilon": 1.0, "steps": 100}
BEGUN = {"kind": "begun", "run": "a", "plan": PLAN}


def charged(steps, run="a"):
    return {"kind": "charged", "run": run, "steps": steps}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "private" / "ledger.jsonl"


@pytest.fixture
def ledger(path):
    """A run begun and charged twice."""
    ledger = Ledger.open(path)
    for entry in (BEGUN, charged(50), charged(100)):
        ledger.append(entry)
    return ledger


def test_a_new_ledger_is_empty_and_makes_no_file(path):
    ledger = Ledger.open(path)
    assert ledger.entries == ()
    assert ledger.head == GENESIS
    assert not path.exists()


def test_entries_come_back_in_order_with_their_positions(path, ledger):
    assert ledger.append({"kind": "finished", "run": "a"}) == 3
    again = Ledger.open(path)
    assert (
        again.entries
        == ledger.entries
        == (BEGUN, charged(50), charged(100), {"kind": "finished", "run": "a"})
    )
    assert again.head == ledger.head
    assert again.append({"kind": "histogram", "note": "of labels"}) == 4


def test_an_entry_is_on_disk_before_append_returns(path, ledger, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    ledger.append({"kind": "finished", "run": "a"})
    assert synced == [path.stat().st_size]


def replace(old, new):
    def change(lines):
        (line,) = [i for i, line in enumerate(lines) if old in line]
        return [*lines[:line], lines[line].replace(old, new), *lines[line + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (replace(b'"epsilon":1.0', b'"epsilon":0.1'), 1),
        (replace(b'"steps":50', b'"steps":40'), 2),
        (replace(b'"position":2', b'"position":7'), 3),
        (replace(b'"position":1', b'"position": 1'), 2),
        (replace(b'"steps":50', b'"free":true,"steps":50'), 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[0], lines[2], lines[1]], 2),
        (lambda lines: [*lines, lines[2]], 4),
        (lambda lines: [lines[0], b"\n", *lines[1:]], 2),
    ],
)
def test_every_change_of_the_past_is_refused_with_its_line_number(path, ledger, change, line):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(PrivacyError, match=f"line {line}: edited or damaged"):
        Ledger.open(path)


def test_a_forger_who_recomputes_every_digest_still_changes_the_head(path, ledger):
    forged = Ledger.open(path.with_name("forged.jsonl"))
    for entry in (BEGUN, charged(49), charged(100)):
        forged.append(entry)
    assert forged.head != ledger.head


@pytest.mark.parametrize("lost", [1, 2, 30])
def test_a_torn_last_line_is_refused_with_its_number_and_what_to_do(path, ledger, lost):
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(PrivacyError, match=r"line 3: the last line is torn.*ledger mend"):
        Ledger.open(path)


def cut(path, length):
    """Tear the last line after `length` bytes, and return what is left of it."""
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:length])
    return last[:length]


@pytest.mark.parametrize("zeros", [b"", bytes(70)], ids=["cut", "zeros"])
def test_wherever_a_line_was_torn_mending_keeps_its_bytes_and_all_lines_before(tmp_path, zeros):
    ledger, path = Ledger.open(tmp_path / "whole"), tmp_path / "torn"
    for entry in (BEGUN, charged(50), {"kind": "note", "of": "Zo\u00eb \u2013 \U0001f600", "to": [{}, 1]}):
        ledger.append(entry)
    *whole, last = ledger.path.read_bytes().splitlines(keepends=True)
    before = b"".join(whole)
    # one more would lack nothing but its end; the middle of the entry is where characters have several bytes
    for length in sorted({*range(1, len(last) - 1, 9), *range(76, 140), len(last) - 2}):
        torn = last[:length] + zeros
        path.write_bytes(before + torn)
        mended = Ledger.mend(path)
        assert mended.line == 3
        assert path.read_bytes() == before
        assert mended.cut.read_bytes() == torn
        assert mended.cut.parent == path.parent
        assert mended.ledger.entries == Ledger.open(path).entries == (BEGUN, charged(50))
        assert mended.ledger.append(charged(60)) == 2
        assert Ledger.open(path).charged_steps("a") == 60


@pytest.mark.parametrize("zeros", [0, 70])
def test_a_line_that_lacks_only_its_end_counts(path, ledger, zeros):
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes(zeros))
    assert Ledger.mend(path).cut is None
    assert path.read_bytes() == before
    assert Ledger.open(path).charged_steps("a") == 100


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda lines: lines, ConfigError, "nothing to mend"),
        (lambda lines: [lines[0], lines[2]], PrivacyError, "line 2: edited"),
        (lambda lines: [lines[0], lines[2][:-1]], PrivacyError, "line 2: edited"),
        (lambda lines: [*replace(b'"steps":50', b'"steps":40')(lines), lines[2][:9]], PrivacyError, "line 2"),
        (lambda lines: [*lines, b"{}"], PrivacyError, "line 4: edited"),
        (lambda lines: [*lines, lines[2][:-5]], PrivacyError, "line 4: what stands"),
        (lambda lines: [*lines, lines[2][:-80]], PrivacyError, "line 4: what stands"),
        (lambda lines: [*lines, b"garbage"], PrivacyError, "line 4: what stands"),
        (lambda lines: [*lines, b'{"digest":"nothing like it'], PrivacyError, "line 4: what stands"),
        (lambda lines: [*lines, lines[2][:90] + b"\1"], PrivacyError, "line 4: what stands"),
        (
            lambda lines: [*lines, lines[2][:90] + b"\0" + lines[2][91:99]],
            PrivacyError,
            "line 4: what stands",
        ),
        (lambda lines: [*lines, lines[2][:90] + b"\xff\xff"], PrivacyError, "line 4: what stands"),
        (lambda lines: [*lines, lines[2][:85] + b"7"], PrivacyError, "line 4: what stands"),
    ],
)
def test_nothing_else_is_mended_and_the_file_stays_as_it_was(path, ledger, change, error, message):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        Ledger.mend(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_what_was_torn_is_on_the_disk_and_its_owners_alone_before_it_is_cut_off(path, ledger, monkeypatch):
    torn, synced = cut(path, 200), []
    fsync, truncate = os.fsync, os.ftruncate

    def cut_off(file, size):
        if os.fstat(file).st_size > size:
            (kept,) = path.parent.glob("*.torn")
            assert (kept.read_bytes(), stat.S_IMODE(kept.stat().st_mode)) == (torn, 0o600)
            assert kept.stat().st_ino in synced
            truncate(file, size)

    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "ftruncate", cut_off)
    Ledger.mend(path)
    assert synced[-1] == path.stat().st_ino  # and the shorter ledger too
    assert not path.read_bytes().endswith(torn)


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are POSIX")
def test_mending_waits_for_whoever_is_writing(path, ledger, monkeypatch):
    asked, flock = [], module.fcntl.flock
    monkeypatch.setattr(module.fcntl, "flock", lambda file, how: (asked.append(how), flock(file, how)))
    read = Ledger._take_in
    monkeypatch.setattr(Ledger, "_take_in", lambda self, file: (asked.append("read"), read(self, file))[1])
    cut(path, 200)
    Ledger.mend(path)
    assert asked[:2] == [module.fcntl.LOCK_EX, "read"]


def test_the_command_line_mends_and_says_what_it_cut(path, ledger, capsys, monkeypatch):
    cut(path, 200)
    monkeypatch.setattr(sys, "argv", ["dpwavelet", "ledger", "mend", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert not ended.value.code
    for words in ("line 3 was cut off", ".torn", "is unknown", "no step was taken on it", "2 entries"):
        assert words in said
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "nothing to mend" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "content", [b"garbage\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b'{"entry":{}}\n']
)
def test_a_file_that_is_no_ledger_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PrivacyError, match="line 1:"):
        Ledger.open(path)


def test_a_ledger_that_became_shorter_takes_no_more_entries(path, ledger):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(PrivacyError, match="shorter"):
        ledger.append({"kind": "finished", "run": "a"})


def test_steps_are_charged_up_to_the_last_charge(ledger):
    assert ledger.charged_steps("a") == 100
    assert ledger.charged_steps("b") == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (charged(50), "charged up to step 50 of 100"),
        (charged(49), "charged up to step 50 of 100"),
        (charged(101), "charged up to step 50 of 100"),
        (charged(60.0), "charged up to step 50 of 100"),
        (charged(60, run="b"), "never begun"),
        (BEGUN, "already begun"),
        ({"kind": "begun", "run": "b"}, "with its plan"),
        ({"kind": "finished", "run": "b"}, "never begun"),
        ({"kind": "charged", "steps": 3}, "names its run"),
        ({"run": "a"}, "says its kind"),
    ],
)
def test_an_entry_that_would_hide_a_cost_is_refused_and_leaves_no_trace(path, entry, message):
    ledger = Ledger.open(path)
    ledger.append(BEGUN)
    ledger.append(charged(50))
    before = path.read_bytes()
    with pytest.raises(PrivacyError, match=message):
        ledger.append(entry)
    assert path.read_bytes() == before
    assert ledger.append(charged(100)) == 2


def test_nothing_is_charged_to_a_finished_run(path):
    ledger = Ledger.open(path)
    for entry in (BEGUN, charged(50), {"kind": "finished", "run": "a"}):
        ledger.append(entry)
    with pytest.raises(PrivacyError, match="was finished"):
        ledger.append(charged(60))


KEYS = ("0a" * 32, "0b" * 32)


def test_a_run_is_bound_to_one_key_and_every_reader_knows_it(path, ledger):
    ledger.bind("a", KEYS[0])
    ledger.bind("a", KEYS[0])  # as after an interruption
    assert [entry["kind"] for entry in ledger.entries] == ["begun", "charged", "charged", "keyed"]
    for known in (ledger, Ledger.open(path)):
        with pytest.raises(PrivacyError, match=r"another key.*another copy of its folder takes its steps"):
            known.bind("a", KEYS[1])
    ledger.append({"kind": "finished", "run": "a"})
    ledger.bind("a", KEYS[0])
    with pytest.raises(PrivacyError, match="another key"):
        ledger.bind("a", KEYS[1])
    assert len(Ledger.open(path).entries) == 5


def test_of_two_who_bind_a_run_the_second_finds_the_first(path, ledger):
    beside = Ledger.open(path)
    ledger.bind("a", KEYS[0])
    with pytest.raises(PrivacyError, match="another key"):
        beside.bind("a", KEYS[1])


@pytest.mark.parametrize("key", ["", "0a", "0A" * 32, None, 7])
def test_a_key_is_told_by_its_digest_alone(ledger, key):
    with pytest.raises(PrivacyError, match="by a SHA-256"):
        ledger.append({"kind": "keyed", "run": "a", "key": key})


def test_a_run_that_was_finished_before_ledgers_told_keys_stays_as_it_is(path, ledger):
    ledger.append({"kind": "finished", "run": "a"})
    ledger.bind("a", KEYS[0])
    assert Ledger.open(path).entries == ledger.entries
    assert ledger.entries[-1]["kind"] == "finished"


def test_a_mechanism_adds_its_noise_to_one_sum_and_every_reader_knows_it(path, ledger):
    ledger.note_sum("a", 0, KEYS[0])
    ledger.note_sum("a", 0, KEYS[0])  # as after an interruption
    ledger.note_sum("a", 1, KEYS[1])
    assert [entry["kind"] for entry in ledger.entries[3:]] == ["summed", "summed"]
    for known in (ledger, Ledger.open(path)):
        with pytest.raises(PrivacyError, match=r"mechanism 0 beside training to another sum"):
            known.note_sum("a", 0, KEYS[1])
    ledger.append({"kind": "finished", "run": "a"})
    ledger.note_sum("a", 2, KEYS[0])  # paid for when the run began
    with pytest.raises(PrivacyError, match="to another sum"):
        ledger.note_sum("a", 1, KEYS[0])
    assert len(Ledger.open(path).entries) == 7


def test_of_two_who_make_a_sum_the_second_finds_the_first(path, ledger):
    beside = Ledger.open(path)
    ledger.note_sum("a", 0, KEYS[0])
    with pytest.raises(PrivacyError, match="to another sum"):
        beside.note_sum("a", 0, KEYS[1])


def test_no_sum_is_made_for_a_run_that_was_abandoned_or_never_begun(path, ledger):
    with pytest.raises(PrivacyError, match="never begun"):
        ledger.note_sum("b", 0, KEYS[0])
    ledger.append({"kind": "abandoned", "run": "a"})
    with pytest.raises(PrivacyError, match="was abandoned"):
        ledger.note_sum("a", 0, KEYS[0])


@pytest.mark.parametrize(("other", "digest"), [(0, "0a"), (0, None), ("0", "0a" * 32), (None, "0a" * 32)])
def test_a_sum_is_told_by_its_mechanism_and_a_digest_alone(ledger, other, digest):
    with pytest.raises(PrivacyError, match="number of its mechanism and a digest"):
        ledger.append({"kind": "summed", "run": "a", "other": other, "digest": digest})


def test_the_head_says_nothing_about_the_entries(tmp_path):
    heads = []
    for name in ("one", "two"):
        ledger = Ledger.open(tmp_path / name)
        ledger.append({"kind": "begun", "run": "a", "plan": PLAN, "fingerprint": "abc"})
        heads.append(ledger.head)
    assert heads[0] != heads[1]  # a guess at the entries cannot be confirmed from a published head


def append_many(path, name):
    ledger = Ledger.open(path)
    for i in range(20):
        ledger.append({"kind": "note", "by": name, "number": i})


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are POSIX")
def test_two_writers_at_once_append_to_one_chain(path):
    with ThreadPoolExecutor(2) as writers:  # each opens the file anew, so the lock works as between processes
        list(writers.map(append_many, [path, path], "ab"))
    entries = Ledger.open(path).entries
    assert len(entries) == 40
    for name in "ab":
        assert [entry["number"] for entry in entries if entry["by"] == name] == list(range(20))


def test_two_ledgers_open_on_one_file_see_each_others_charges(path, ledger):
    other = Ledger.open(path)
    ledger.append({"kind": "begun", "run": "b", "plan": PLAN})
    other.append(charged(10, run="b"))
    with pytest.raises(PrivacyError, match="charged up to step 10"):
        ledger.append(charged(10, run="b"))


def test_a_full_disk_charges_nothing_and_leaves_the_ledger_whole(path, ledger, monkeypatch):
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(module.os, "write", lambda file, line: write(file, line[:20]))
    with pytest.raises(OutputError, match="nothing was charged"):
        ledger.append({"kind": "finished", "run": "a"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert ledger.append({"kind": "finished", "run": "a"}) == 3


def test_a_ledger_that_cannot_be_made_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="without a ledger nothing is spent"):
        Ledger.open(tmp_path / "file" / "ledger.jsonl").append({"kind": "note"})


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_only_the_owner_may_read_a_ledger(path, ledger):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_are_readable_json(path, ledger):
    first = json.loads(path.read_text().splitlines()[0])
    assert first["entry"] == BEGUN
    assert first["previous"] == GENESIS
