"""Things named as text and imported when asked for, bigbox's own and those of other packages.

Another package adds a thing by an entry point, and touches no file of bigbox:

    [project.entry-points."bigbox.painters"]
    my-painter = "my_package.painter:ROW"
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bigbox.errors import BadInput


def load(reference: str) -> Any:
    """Return what "module:NAME" names, its module imported now."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by their names, none of them imported."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load_installed(group: str, name: str) -> Any:
    """Return what an installed package adds to the group under that name, None where none does.

    Raises BadInput where it cannot be imported.
    """
    entry = installed(group).get(name)
    if entry is None:
        return None
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"{name}: {entry.value} ({group}) cannot be imported: {error}; repair or uninstall it"
        ) from None
