"""What a disk may hold after a loss of power: changes recorded by record.c, replayed up to a point.

The model, as in `bigbox.testing.disks`, is what POSIX promises and no more: bytes are durable after
a sync of their file, names after a sync of their folder. What was not is, file by file and folder
by folder, kept, lost, or kept in part:

    bytes   all there, all gone, cut at any length, or with stretches of zeros
    names   a prefix of the changes of each folder, whatever became of other folders; a file that is
            moved between folders may have both names or neither, a folder has one of them
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """One line of the log."""

    what: str
    words: tuple[str, ...]
    data: bytes = b""


@dataclass
class Node:
    """A file (bytes) or folder (names), as it is, and what of it is not durable yet."""

    folder: bool
    data: bytearray = field(default_factory=bytearray)
    names: dict[str, Node] = field(default_factory=dict)
    undo: list[tuple[int, bytes, int, int]] = field(
        default_factory=list
    )  # offset, old, size, length
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[NameChange] = field(default_factory=list)


@dataclass(eq=False)
class NameChange:
    """A name in a folder that came to mean something else (None: nothing)."""

    name: str
    node: Node | None
    both: NameChange | None = None  # the other half of a folder's move: kept together


def read_log(path: Path) -> list[Change]:
    """Return the changes that were recorded, in order."""
    raw, at, found = path.read_bytes(), 0, []
    while at < len(raw):
        end = raw.index(b"\n", at)
        what, *words = raw[at:end].decode().split(" ")
        at, size = end + 1, int(words[2]) if what == "write" else 0
        found.append(Change(what, tuple(words), raw[at : at + size]))
        at += size
    return found


class Disk:
    """A disk that changes are applied to."""

    def __init__(self, root: Path) -> None:
        self.nodes: dict[str, Node] = {}  # by inode, as the recorded file system numbers them
        self.top = self._read(root)

    def _read(self, place: Path) -> Node:
        """Take up what is there when the recording begins: all of it durable."""
        node = Node(place.is_dir())
        self.nodes[str(place.lstat().st_ino)] = node
        if node.folder:
            node.names = {one.name: self._read(one) for one in place.iterdir()}
            node.durable = dict(node.names)
        else:
            node.data = bytearray(place.read_bytes())
        return node

    def apply(self, change: Change) -> None:
        """Let one change happen."""
        words = change.words
        if change.what == "make":
            folder, name, inode, kind = words
            self.nodes[inode] = node = Node(kind == "d")
            self._name(folder, name, node)
        elif change.what == "name":
            self._name(words[0], words[1], self.nodes[words[2]])
        elif change.what == "gone":
            self._name(words[0], words[1], None)
        elif change.what == "move":
            before, old, after, new, inode, kind = words
            node = self.nodes[inode]
            gone, there = self._name(before, old, None), self._name(after, new, node)
            if kind == "d" and before != after:
                gone.both, there.both = there, gone
        elif change.what == "sync":
            self._sync(self.nodes[words[0]])
        else:
            self._change(self.nodes[words[0]], change)

    def _name(self, folder: str, name: str, node: Node | None) -> NameChange:
        place = self.nodes[folder]
        if node is None:
            place.names.pop(name, None)
        else:
            place.names[name] = node
        change = NameChange(name, node)
        place.pending.append(change)
        return change

    @staticmethod
    def _change(node: Node, change: Change) -> None:
        number = int(change.words[1])
        size = len(node.data)
        if change.what == "size":
            low, high = min(number, size), max(number, size)
            node.undo.append((low, bytes(node.data[low:high]), size, high - low))
            node.data[number:] = bytes(max(0, number - size))
            return
        end = number + len(change.data)
        node.undo.append((number, bytes(node.data[number:end]), size, len(change.data)))
        node.data.extend(bytes(max(0, end - size)))
        node.data[number:end] = change.data

    def _sync(self, node: Node) -> None:
        node.undo.clear()
        if not node.folder:
            return
        for change in node.pending:
            _set(node.durable, change)
            other = change.both
            if other is not None:  # the folder that it left, or came to, knows it too
                other.both = None
                change.both = None
                for place in self.nodes.values():
                    if other in place.pending:
                        place.pending.remove(other)
                        _set(place.durable, other)
        node.pending.clear()

    def after_loss(self, rng: random.Random) -> Survivors:
        """Return what is left after a loss of power, as a seeded choice of what may be."""
        return Survivors(self, rng)


def _set(names: dict[str, Node], change: NameChange) -> None:
    if change.node is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.node


class Survivors:
    """What is left, to be written out as files."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self._top, self._rng = disk.top, rng
        self._names: dict[int, dict[str, Node]] = {}
        kept: dict[int, bool] = {}  # of halves of a folder's move
        mode = rng.choice(["all", "none", "mixed", "mixed", "mixed"])
        for node in disk.nodes.values():
            if not node.folder:
                continue
            names, many = dict(node.durable), len(node.pending)
            keep = {"all": many, "none": 0}.get(mode, rng.choice([0, many, rng.randint(0, many)]))
            for number, change in enumerate(node.pending):
                there = number < keep
                if change.both is not None:
                    there = kept.setdefault(id(change.both), there)
                    kept[id(change)] = there
                if there:
                    _set(names, change)
            self._names[id(node)] = names
        self._mode = mode

    def write(self, place: Path) -> None:
        """Write it below a folder that is not there."""
        self._write(place, self._top)

    def _write(self, place: Path, node: Node) -> None:
        if not node.folder:
            place.write_bytes(self._bytes(node))
            return
        place.mkdir()
        for name, inside in self._names[id(node)].items():
            self._write(place / name, inside)

    def _bytes(self, node: Node) -> bytes:
        how = self._rng.choice(["keep", "lose", "cut", "zeros"])
        how = {"all": "keep", "none": "lose"}.get(self._mode, how)
        if not node.undo or how == "keep":
            return bytes(node.data)
        data = bytearray(node.data)
        if how in ("lose", "cut"):
            stay = 0 if how == "lose" else self._rng.randint(0, len(node.undo) - 1)
            offset, _, before, length = node.undo[stay]
            for low, old, size, _ in reversed(node.undo[stay + (how == "cut") :]):
                data[low : low + len(old)] = old
                data = data[:size] + bytes(max(0, size - len(data)))
            if how == "cut":
                data = data[: max(before, min(len(data), offset + self._rng.randint(0, length)))]
            return bytes(data)
        for offset, _, _, length in node.undo:
            low = offset + self._rng.randint(0, max(length - 1, 0))
            high = min(offset + length, len(data), low + self._rng.randint(1, 4096))
            if high > low:
                data[low:high] = bytes(high - low)
        return bytes(data)


def tree_of(place: Path) -> dict[str, bytes]:
    """Files below a folder by their paths, and folders as b'/'."""
    return {
        str(path.relative_to(place)): b"/" if path.is_dir() else path.read_bytes()
        for path in place.rglob("*")
    }


def tree_of_node(node: Node, before: str = "") -> Iterator[tuple[str, bytes]]:
    """The same of a disk as it is, with nothing lost."""
    for name, inside in node.names.items():
        yield before + name, b"/" if inside.folder else bytes(inside.data)
        if inside.folder:
            yield from tree_of_node(inside, f"{before}{name}/")


def counts(changes: list[Change]) -> str:
    """What was recorded, in words."""
    many: dict[str, int] = defaultdict(int)
    for change in changes:
        many[change.what] += 1
    return ", ".join(f"{count} {what}" for what, count in sorted(many.items()))
