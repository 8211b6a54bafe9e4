"""What a caller may catch.

    DpwaveletError
    ├── ConfigError    a setting is out of range or contradicts another
    ├── DataError      the images, captions or their folder are not usable as they are
    ├── ModelError     a file of ours is missing, damaged or of another shape: mostly of a model folder
    ├── PrivacyError   the request would break the promise, so it is refused
    └── OutputError    a result could not be written whole

Every message says what came, what was wanted and what to do. The command line prints it as one line and
exits with status 2. Anything else that escapes is a defect of ours.
"""


class DpwaveletError(Exception):
    """Base of every error that the library raises on purpose."""


class ConfigError(DpwaveletError):
    """A setting is out of range or contradicts another."""


class DataError(DpwaveletError):
    """The images, captions or their folder are not usable as they are."""


class ModelError(DpwaveletError):
    """A model folder is missing, damaged or of another shape."""


class PrivacyError(DpwaveletError):
    """The request would break the promise, so it is refused."""


class OutputError(DpwaveletError):
    """A result could not be written whole."""
