import pytest

from dpwavelet.images.portrait_people import portraits

PEOPLE = portraits(2_000, seed=7)


def test_the_same_seed_gives_the_same_portraits_and_another_seed_gives_others():
    assert portraits(50, seed=1) == portraits(50, seed=1)
    assert not any(one == other for one in portraits(20, seed=1) for other in portraits(20, seed=2))


@pytest.mark.parametrize(("start", "count"), [(0, 1), (1, 1), (999, 3), (1_999, 1)])
def test_a_portrait_depends_on_its_index_and_not_on_its_neighbours(start, count):
    assert portraits(count, seed=7, start=start) == PEOPLE[start : start + count]
