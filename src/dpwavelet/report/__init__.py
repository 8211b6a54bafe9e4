"""One release on one page: `report.html` for people, `card.md` for the model folder.

Everything here may be published, because every input is DP, computed from something DP, or public. The
report of what was measured on private records is another document with another type.
"""

from dpwavelet.report.release import (
    Fact,
    Origin,
    ReleaseReport,
    Sample,
    about,
    attack_bounds,
    render_card,
    render_release,
)

__all__ = [
    "Fact",
    "Origin",
    "ReleaseReport",
    "Sample",
    "about",
    "attack_bounds",
    "render_card",
    "render_release",
]
