"""`dpwavelet key`: the owner's key, by which others know whose certificate they read."""

from pathlib import Path
from typing import Annotated

import typer

from dpwavelet.checkpoint import write_bytes
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.keys import KEY_VARIABLE, key_file, public_bytes, public_pem, signing_key

app = typer.Typer(no_args_is_help=True, help="Show and export the public part of the key that signs.")

File = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="File of the key that signs; DPWAVELET_KEY unless given. A run makes one that is not there.",
    ),
]


@app.command()
def show(key: File = None) -> None:
    """Print the public key, for reviewers to compare with."""
    path = _named(key)
    if not path.exists():
        raise ConfigError(f"there is no key at {path}; `run` or `key export --new` makes one where none is.")
    print(public_bytes(signing_key(path)).hex())


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="PEM file to write; it may be published.")],
    key: File = None,
    new: Annotated[
        bool, typer.Option("--new", help="Make a key where there is none: it has signed nothing yet.")
    ] = False,
) -> None:
    """Write the public key into a file, for `dpwavelet verify --public-key`."""
    path = _named(key)
    if not path.exists() and not new:
        raise ConfigError(
            f"there is no key at {path}, so this would not be the public half of one that signed anything; "
            "name the right file, or say --new for one to sign with from now on."
        )
    if path.exists() and new:
        raise ConfigError(f"there is a key at {path} already; leave out --new, or name another file.")
    write_bytes(out, public_pem(signing_key(path)))
    print(out)


def _named(key: Path | None) -> Path:
    if (path := key_file(key)) is None:
        raise ConfigError(
            f"name the key with --key or {KEY_VARIABLE}; a run without either has its own, "
            "OUT/private/keys/signing_key.pem."
        )
    return path
