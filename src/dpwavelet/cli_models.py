"""`dpwavelet models`: the weights that ship with the package, and whether files are what they were."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dpwavelet import shipped

app = typer.Typer(
    invoke_without_command=True,
    help="List the weights that ship with the package, find them and check their files.",
)

Name = Annotated[str, typer.Argument(help="A name from `models list`.")]


@app.callback()
def _list_unless_told_otherwise(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_command()


@app.command(name="list")
def list_command() -> None:
    """List name, kind, size, what they were trained on, and one digest of all files."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "size", "trained on", "digest"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for name, each in shipped.shipped().items():
        size = f"{each.size / 1e6:.1f} MB"
        table.add_row(name, each.kind, size, each.trained_on, each.digest[:16])
    Console(width=120, soft_wrap=True).print(table)


@app.command()
def path(name: Name) -> None:
    """Print the folder of shipped weights."""
    print(shipped.place(name))


@app.command()
def verify(
    name: Annotated[
        str | None,
        typer.Argument(help="A name from `models list`, or a model folder; all names unless given."),
    ] = None,
) -> None:
    """Compare files with pinned digests, or those that a folder was saved with. Exits 1 if they differ."""
    good = True
    for each in [name] if name is not None else shipped.shipped():
        found = shipped.compare(each)
        good &= found.ok
        print(f"{each}: {found.folder}, beside {found.beside}")
        print("\n".join(("ok    " if ok else "WRONG ") + text for ok, text in found.lines))
    if not good:
        raise typer.Exit(1)


@app.command(hidden=True)
def pin() -> None:
    """Write the digests of the shipped files into the package, after they were changed on purpose."""
    print(shipped.pin())
