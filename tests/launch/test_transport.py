"""Blocks of bytes between real MPI ranks; run under mpirun with --with-mpi."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bigbox.engine.mpi import World, join_world
from bigbox.engine.transport import Kind, Message, Parcel
from bigbox.errors import BadInput

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture(scope="module")
def world() -> World:
    return join_world()


def wait_for(what, seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "nothing arrived"
        time.sleep(0.001)


@pytest.mark.parametrize("voxels", [1, 4096, 3_000_000])
def test_every_block_arrives_whole_and_once(world: World, voxels: int) -> None:
    transport = world.transport()
    data = np.arange(voxels, dtype=np.float32).reshape(1, 1, 1, voxels) + world.rank
    for to in range(world.size):
        if to != world.rank:
            parcel = Parcel(np.array([100 + world.rank, 2, 1]), data)
            message = Message(Kind.FINAL, 1, np.array([world.rank, to]), parcel)
            transport.send(to, message.encode())
    blocks: list[bytearray] = []

    def everything() -> bool:
        blocks.extend(transport.poll())
        return len(blocks) == world.size - 1 and transport.sent()

    wait_for(everything)

    def all_ranks_finished() -> bool:
        assert not transport.poll(), "a message came twice"
        return transport.finished()

    wait_for(all_ranks_finished)
    senders = set()
    for block in blocks:
        message = Message.decode(block)
        sender, to = message.chunks.tolist()
        senders.add(sender)
        assert to == world.rank and message.kind is Kind.FINAL and message.task == 1
        assert message.parcel.numbers.tolist() == [100 + sender, 2, 1]
        got = message.parcel.data.view(np.float32).reshape(data.shape)
        np.testing.assert_array_equal(got, data - world.rank + sender)
    assert senders == set(range(world.size)) - {world.rank}


def test_an_error_of_rank_0_reaches_every_rank(world: World) -> None:
    def refuse() -> int:
        raise BadInput("rank 0 says no")

    with pytest.raises(BadInput, match="rank 0 says no"):
        world.first(refuse)
    assert world.first(lambda: 7) == 7


def test_an_error_of_one_rank_reaches_every_rank(world: World) -> None:
    def refuse_on_the_last() -> int:
        if world.rank == world.size - 1:
            raise BadInput("the last rank says no")
        return world.rank

    with pytest.raises(BadInput, match="the last rank says no"):
        world.each(refuse_on_the_last)
    assert world.each(lambda: world.rank) == world.rank
    assert world.gather(world.rank) == list(range(world.size))
