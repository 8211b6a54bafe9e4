"""How words of the command line are read."""

import pytest

from dpwavelet.cli_compare import SEVERAL
from dpwavelet.cli_options import is_number, repeated, use
from dpwavelet.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["d", "--epsilon", "1", "2"], ["d", "--epsilon", "1", "--epsilon", "2"]),
        (["--epsilon", "1", "2", "d", "3"], ["--epsilon", "1", "--epsilon", "2", "d", "3"]),
        (["--epsilon=1", "2.5", "1e1"], ["--epsilon=1", "--epsilon", "2.5", "--epsilon", "1e1"]),
        (["--epsilon", "1", "-2"], ["--epsilon", "1", "--epsilon", "-2"]),
        (["d", "--records", "5", "6"], ["d", "--records", "5", "6"]),
        (["--epsilon", "1", "--records", "5"], ["--epsilon", "1", "--records", "5"]),
        (["--epsilon", "1", "--", "8"], ["--epsilon", "1", "--", "8"]),
        (["--epsilon"], ["--epsilon"]),
    ],
)
def test_where_the_folder_may_follow_only_numbers_belong_to_the_option(
    words: list[str], read: list[str]
) -> None:
    assert repeated(words, {"--epsilon": is_number}) == read


def test_where_the_folder_comes_first_every_word_after_an_option_gets_its_own() -> None:
    words = [
        "data",
        "--epsilon",
        "1",
        "10",
        "inf",
        "--methods=a",
        "b",
        "--seeds",
        "2",
        "--weights",
        "a=x",
        "b=y",
    ]
    assert repeated(words, SEVERAL) == [
        "data", "--epsilon", "1", "--epsilon", "10", "--epsilon", "inf", "--methods=a", "--methods", "b",
        "--seeds", "2", "--weights", "a=x", "--weights", "b=y",
    ]  # fmt: skip


def test_a_word_after_an_option_that_takes_one_is_left_alone() -> None:
    assert repeated(["data", "--seeds", "2", "3"], SEVERAL) == ["data", "--seeds", "2", "3"]


@pytest.mark.parametrize("threads", [0, -1, 2**40])
def test_threads_that_no_machine_has_are_refused(threads: int) -> None:
    with pytest.raises(ConfigError, match=r"threads must be from 1 to 4,096, got"):
        use(threads)
