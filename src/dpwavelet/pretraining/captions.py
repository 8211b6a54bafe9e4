"""Public captions made richer by what the pixels show, so that words about colour and light mean something.

A public set that says only "a photo of a goldfish" teaches no colours. Each time a public image is used, its
caption gets up to two clauses about its border, its middle, its upper and lower half, or its brightness, read
off the pixels. Private captions are never touched.
"""

import numpy as np

from dpwavelet.images.tones import CLAUSES, Said


def enrich(caption: str, facts: list[Said], generator: np.random.Generator) -> str:
    """Add zero, one or two clauses, in words drawn at random."""
    picked = generator.choice(len(facts), size=int(generator.integers(0, 3)), replace=False)
    parts = [caption.strip(" .")]
    for index in picked:
        where, word = facts[int(index)]
        if where == "light":
            parts.append(f"{word} photo")
        else:
            templates = CLAUSES[where]
            parts.append(templates[int(generator.integers(len(templates)))].format(word))
    joiner = " " if generator.random() < 0.5 else ", "
    return joiner.join(part for part in parts if part)
