"""Where the bytes of a file lie in memory."""

from hypothesis import given
from hypothesis import strategies as st

from recast.execution.values.window import Use, Window

POSITIONS = st.integers(0, 1 << 40)


@given(st.integers(1, 10_000), POSITIONS, st.sampled_from(Use))
def test_no_copy_goes_to_an_address_just_behind(nbytes: int, position: int, use: Use) -> None:
    """By the lower twelve bits, what is copied to lies before what is copied from, or far away."""
    room = Window(nbytes).at(position, nbytes, use)
    assert room.nbytes == nbytes
    address = room.ctypes.data
    behind = address - position if use is Use.READ else position - address
    assert behind % 4096 > 64


@given(st.integers(1, 10_000), st.lists(POSITIONS, min_size=1), st.sampled_from(Use))
def test_values_of_any_dtype_may_begin_there(nbytes: int, positions: list[int], use: Use) -> None:
    """Wherever in the file, all of the room can be written, and is aligned for 64 bits."""
    window = Window(nbytes)
    for position in positions:
        room = window.at(position, nbytes, use)
        room[:] = 1
        assert room.sum() == nbytes
        assert room.ctypes.data % 8 == 0
