"""A small grammar that says in English what a drawn portrait shows, in 8 to 22 words.

A caption may leave things out but never says what is not in the picture. It is lower-case and uses plain
words, with commas and full stops only, so that a small vocabulary covers it.
"""

from collections.abc import Sequence

from dpwavelet.images.portrait_traits import Dice, Traits

SHORTEST, LONGEST = 8, 22


def describe(traits: Traits, dice: Dice) -> str:
    """One caption; spends at most 30 numbers. What is most telling is said first and left out last."""
    who = dice.pick(LEADS) + _subject(traits, dice)
    has, wears, aside = _features(traits, dice), _clothing(traits, dice), _aside(traits, dice)
    backdrop = dice.pick(BACKDROPS).format(_with_article(traits.background))
    pattern = PATTERNS[int(dice.between(0, len(PATTERNS)))]
    pronoun = {"woman": "she", "man": "he"}[traits.gender]
    shown = min(1 + int(dice.between(0, 3)), len(has))
    worn = len(wears) if dice.chance(0.5) or not shown else len(wears) - 1
    place, turned = dice.chance(0.85), dice.chance(0.3)
    while True:
        subject = f"{who} {aside}" if turned else who
        text = pattern(subject, has[:shown], wears[:worn], backdrop if place else "", pronoun)
        words = len(text.split())
        if words < SHORTEST and not place:
            place = True
        elif words < SHORTEST:
            worn = len(wears)
        elif words <= LONGEST:
            return text
        elif turned:
            turned = False
        elif shown > 1:
            shown -= 1
        elif worn:
            worn -= 1
        else:  # the lead, one feature and the backdrop can be too long together
            place = False


def _subject(traits: Traits, dice: Dice) -> str:
    """The person, with a mood or an age: 'a smiling young woman'."""
    child = {"woman": "girl", "man": "boy"}[traits.gender]
    person = child if traits.age == "child" else traits.gender
    age = {"young": "young ", "old": "old "}.get(traits.age, "") if dice.chance(0.75) else ""
    mood = dice.pick(MOODS[traits.expression])
    bald = "bald " if traits.hair_style == "bald" and traits.shows_hair and dice.chance(0.8) else ""
    return _with_article(f"{mood}{bald}{age}{person}")


def _features(traits: Traits, dice: Dice) -> list[str]:
    """Noun phrases that can follow 'with' or 'has', in an order of chance."""
    phrases = []
    if traits.shows_hair and traits.hair_style != "bald":
        phrases.append(dice.pick(HAIR_PHRASES[traits.hair_style]).format(traits.hair_colour))
    if traits.glasses != "none":
        phrases.append(dice.pick(GLASSES_PHRASES[traits.glasses]))
    if traits.beard != "none":
        phrases.append(dice.pick(BEARD_PHRASES[traits.beard]).format(traits.hair_colour))
    if traits.earrings:
        phrases.append("earrings")
    if traits.glasses != "sunglasses":
        phrases.append(f"{traits.eye_colour} eyes")
    if dice.chance(0.15):
        phrases.reverse()
    return phrases


def _clothing(traits: Traits, dice: Dice) -> list[str]:
    """Noun phrases that can follow 'wearing': the hat first, then the clothes."""
    clothes = _with_article(dice.pick(CLOTHES_PHRASES[traits.clothes]).format(traits.clothes_colour))
    if traits.hat == "none":
        return [clothes]
    return [_with_article(dice.pick(HAT_PHRASES[traits.hat]).format(traits.hat_colour)), clothes]


def _aside(traits: Traits, dice: Dice) -> str:
    """Where the head is turned or where the light comes from."""
    ahead = traits.facing == "ahead"
    facing = "facing forward" if ahead else f"turned to the {traits.facing}"
    return (
        facing
        if dice.chance(0.4 if ahead else 0.9)
        else f"lit from the {'left' if traits.light < 0 else 'right'}"
    )


def _one_sentence(who: str, has: Sequence[str], wears: Sequence[str], backdrop: str, pronoun: str) -> str:
    return _joined(who, _after("with", has), _after("wearing", wears), backdrop)


def _commas(who: str, has: Sequence[str], wears: Sequence[str], backdrop: str, pronoun: str) -> str:
    parts = (_joined(who, _after("with", has)), _after("wearing", wears), backdrop)
    return ", ".join(part for part in parts if part)


def _clothes_first(who: str, has: Sequence[str], wears: Sequence[str], backdrop: str, pronoun: str) -> str:
    return _joined(who, _after("in", wears), _after("with", has), backdrop)


def _two_sentences(who: str, has: Sequence[str], wears: Sequence[str], backdrop: str, pronoun: str) -> str:
    claims = " and ".join(part for part in (_after("has", has), _after("wears", wears)) if part)
    return _joined(who, backdrop) + (f". {pronoun} {claims}." if claims else ".")


def _backdrop_first(who: str, has: Sequence[str], wears: Sequence[str], backdrop: str, pronoun: str) -> str:
    rest = _joined(who, _after("with", has), _after("wearing", wears))
    return f"{backdrop}, {rest}" if backdrop else rest


def _after(word: str, phrases: Sequence[str]) -> str:
    """'with a, b and c', or nothing at all."""
    if not phrases:
        return ""
    start = ", ".join(phrases[:-1])
    return f"{word} {start} and {phrases[-1]}" if start else f"{word} {phrases[-1]}"


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


PATTERNS = (_one_sentence, _commas, _clothes_first, _two_sentences, _backdrop_first)
LEADS = {
    "": 30.0,
    "a portrait of ": 25.0,
    "a drawing of ": 15.0,
    "a picture of ": 12.0,
    "a flat drawing of ": 6.0,
    "the face of ": 6.0,
    "a simple portrait of ": 6.0,
}
MOODS = {
    "smiling": {"smiling ": 6.0, "happy ": 2.0, "": 2.0},
    "laughing": {"laughing ": 6.0, "very happy ": 2.0, "": 2.0},
    "neutral": {"calm ": 2.0, "serious ": 2.0, "": 5.0},
    "surprised": {"surprised ": 7.0, "": 3.0},
}
HAIR_PHRASES = {
    "shaved": {"very short {} hair": 1.0, "shaved {} hair": 1.0},
    "short": {"short {} hair": 1.0},
    "side": {"short {} hair parted on the side": 1.0, "short {} hair": 1.0},
    "spiky": {"spiky {} hair": 1.0, "short spiky {} hair": 1.0},
    "curly": {"curly {} hair": 1.0, "short curly {} hair": 1.0},
    "afro": {"big round {} hair": 1.0, "big curly {} hair": 1.0},
    "bob": {"{} hair down to the chin": 1.0, "straight {} hair": 1.0},
    "fringe": {"{} hair and a fringe": 1.0, "a straight {} fringe": 1.0},
    "long": {"long {} hair": 2.0, "long straight {} hair": 1.0},
    "wavy": {"long wavy {} hair": 2.0, "long {} hair": 1.0},
    "bun": {"{} hair in a bun": 2.0, "a {} bun": 1.0},
    "pigtails": {"{} hair in two bunches": 1.0, "{} bunches": 1.0},
}
GLASSES_PHRASES = {
    "round": {"round glasses": 2.0, "glasses": 1.0},
    "square": {"square glasses": 2.0, "glasses": 1.0},
    "sunglasses": {"sunglasses": 2.0, "dark sunglasses": 1.0},
}
BEARD_PHRASES = {
    "stubble": {"stubble": 1.0},
    "moustache": {"a {} moustache": 2.0, "a moustache": 1.0},
    "full": {"a {} beard": 2.0, "a full {} beard": 1.0, "a beard": 1.0},
}
HAT_PHRASES = {
    "cap": {"{} cap": 1.0},
    "beanie": {"{} beanie": 2.0, "warm {} beanie": 1.0},
    "brimmed": {"{} hat": 2.0, "wide {} hat": 1.0},
}
CLOTHES_PHRASES = {
    "sweater": {"{} sweater": 2.0, "{} top": 1.0},
    "shirt": {"{} shirt": 2.0, "{} shirt with a collar": 1.0},
    "striped": {"striped {} sweater": 2.0, "striped {} top": 1.0},
    "open": {"{} top": 1.0, "{} top with an open neck": 1.0},
}
BACKDROPS = {
    "on {} background": 4.0,
    "against {} background": 3.0,
    "in front of {} wall": 2.0,
    "before {} background": 1.0,
}
