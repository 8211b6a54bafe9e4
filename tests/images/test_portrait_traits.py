import numpy as np

from dpwavelet.images.portrait_people import portraits

PEOPLE = portraits(2_000, seed=7)


def test_traits_go_together_sensibly():
    assert all(p.beard == "none" for p in PEOPLE if p.gender == "woman" or p.age == "child")
    assert np.mean([p.hair_colour in ("grey", "white") for p in PEOPLE if p.age == "old"]) > 0.5
    assert np.mean([p.hair_colour in ("grey", "white") for p in PEOPLE if p.age == "young"]) == 0


def test_clothes_stand_out_from_the_background():
    difference = np.array([p.clothes_rgb for p in PEOPLE]) - np.array([p.background_rgb for p in PEOPLE])
    assert np.abs(difference).sum(1).min() > 0.25


def test_every_named_trait_occurs():
    for name, least in {
        "background": 11,
        "hair_style": 12,
        "hair_colour": 11,
        "hat": 4,
        "glasses": 4,
    }.items():
        assert len({getattr(person, name) for person in PEOPLE}) >= least, name
