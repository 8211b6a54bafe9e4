"""The systems that DP-Wavelet is compared with, under the same plan, clipping, accountant and records.

Each is a package of its own and has the face of `Rival`.
"""

from dpwavelet.rivals.base import Rival

__all__ = ["Rival"]
