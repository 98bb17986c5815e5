"""The evidence of what rounding did, beside torch's own arithmetic in fp64."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast import Dtype
from recast.execution.cast import NUMPY_DTYPES, Array
from recast.execution.examine import Examiner
from tests.checkpoints import TORCH_DTYPES
from tests.execution.test_cast import CASTS

NOTABLE = [
    *(0.0, -0.0, 1.0, -1.5, float("inf"), -float("inf"), float("nan")),
    *(65504.0, 65519.0, 65520.0, -1e6, 3.4028234e38, -3.39e38, 1e300),  # about to overflow
    *(2.0**-24, 2.0**-26, 1e-40, -1e-45, 5e-324, 1 + 2.0**-8, 1 + 2.0**-9, 1 / 3),
]


@st.composite
def tensors(draw: st.DrawFn, dtype: Dtype) -> torch.Tensor:
    """Draw a flat tensor, not empty, of one character: anything, lossless, or all alike."""
    size = draw(st.integers(1, 12))
    width = dtype.bits // 8
    kind = draw(st.sampled_from(["bits", "notable", "narrow", "noise"]))
    if kind == "bits":
        content = draw(st.binary(min_size=size * width, max_size=size * width))
        bits = np.frombuffer(content, f"<i{width}").copy()
        return torch.from_numpy(bits).view(TORCH_DTYPES[dtype])
    if kind == "narrow":  # exact in any of the dtypes
        values = draw(st.lists(st.integers(-128, 128), min_size=size, max_size=size))
    elif kind == "notable":
        values = draw(st.lists(st.sampled_from(NOTABLE), min_size=size, max_size=size))
    else:
        values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(size)
    return torch.tensor(values, dtype=torch.float64).to(TORCH_DTYPES[dtype])


def bits_of(tensor: torch.Tensor) -> Array:
    """Return the bits of a tensor."""
    return tensor.contiguous().view(getattr(torch, f"int{tensor.itemsize * 8}")).numpy()


def by_torch(tensor: torch.Tensor, target: Dtype) -> tuple[bool, float, int, float]:
    """Return whether casting loses nothing, the largest error, what overflows, and the largest."""
    before = tensor.double()
    after = tensor.to(TORCH_DTYPES[target]).double()
    overflowed = before.isfinite() & after.isinf()
    unchanged = (before == after) | (before.isnan() & after.isnan())
    errors = (before - after).abs()[before.isfinite() & after.isfinite()]
    largest = errors.max().item() if len(errors) else 0.0
    highest = before[overflowed].abs().max().item() if overflowed.any() else 0.0
    return bool(unchanged.all()), largest, int(overflowed.sum()), highest


def gathered(examiner: Examiner) -> list[tuple[bool, float, int, float]]:
    """Return the same, as far as an examiner has seen it, for each of its tensors."""
    columns = (examiner.lossless, examiner.largest_error, examiner.overflowed)
    return list(zip(*columns, examiner.largest_overflow, strict=True))


@pytest.mark.parametrize(("source", "target"), CASTS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_evidence_is_what_torch_finds(source: Dtype, target: Dtype, data: st.DataObject) -> None:
    """However the values are cut into pieces and shared among threads, the evidence is torch's."""
    drawn = data.draw(st.lists(tensors(source), min_size=1, max_size=5))
    whole = torch.cat(drawn)
    values = bits_of(whole).view(NUMPY_DTYPES[source])
    cast = bits_of(whole.to(TORCH_DTYPES[target])).view(NUMPY_DTYPES[target])
    begins = np.cumsum([0, *map(len, drawn[:-1])])
    cuts = data.draw(st.sets(st.integers(1, len(values)), max_size=6))
    edges = sorted({0, len(values)} | cuts)
    # One tensor more than there are: nothing is ever said about it.
    examiners = [Examiner(len(drawn) + 1) for _ in range(data.draw(st.integers(1, 3)))]
    for begin, end in pairwise(edges):
        held = [
            number
            for number, at in enumerate(begins)
            if at < end and at + len(drawn[number]) > begin
        ]
        starts = np.array([max(begins[number] - begin, 0) for number in held])
        examiner = data.draw(st.sampled_from(examiners))
        examiner.examine(values[begin:end], cast[begin:end], starts, np.array(held))
    total, *others = examiners
    for other in others:
        total.merge(other)
    assert gathered(total) == [*(by_torch(tensor, target) for tensor in drawn), (True, 0.0, 0, 0.0)]


MAX = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -2.5, torch.inf, torch.nan], (True, 0.0, 0, 0.0)),
        ([1 + 2**-9, 1.0], (False, 2**-9, 0, 0.0)),
        ([1.0, 1 + 2**-8], (False, 2**-8, 0, 0.0)),
        ([3.4e38, -MAX, 1.0], (False, 0.0, 2, MAX)),
        ([MAX, 1 + 2**-9, torch.nan, -torch.inf], (False, 2**-9, 1, MAX)),
        ([2.0**-149, -0.0], (False, 2.0**-149, 0, 0.0)),
    ],
)
def test_evidence_in_numbers(values: list[float], expected: tuple[bool, float, int, float]) -> None:
    """NaN and infinity are no error, an overflow is none of size, and a subnormal is one."""
    tensor = torch.tensor(values)
    examiner = Examiner(1)
    cast = bits_of(tensor.bfloat16()).view(NUMPY_DTYPES[Dtype.BF16])
    examiner.examine(tensor.numpy(), cast, np.array([0]), np.array([0]))
    assert [by_torch(tensor, Dtype.BF16)] == gathered(examiner) == [expected]


@pytest.mark.parametrize(("source", "target"), CASTS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_looking_for_overflow_only(source: Dtype, target: Dtype, data: st.DataObject) -> None:
    """Without errors, it is still seen of every tensor what overflowed, and how large it was."""
    tensor = data.draw(tensors(source))
    values = bits_of(tensor).view(NUMPY_DTYPES[source])
    cast = bits_of(tensor.to(TORCH_DTYPES[target])).view(NUMPY_DTYPES[target])
    examiner = Examiner(1, errors=False)
    examiner.examine(values, cast, np.array([0]), np.array([0]))
    assert gathered(examiner)[0][2:] == by_torch(tensor, target)[2:]


def test_pieces_are_left_as_they_were() -> None:
    """Looking at values changes none of them, although a scratch space is used."""
    tensor = torch.tensor(NOTABLE).repeat(3)
    piece, cast = tensor.numpy(), bits_of(tensor.half()).view(np.float16)
    before = piece.tobytes(), cast.tobytes()
    Examiner(1).examine(piece, cast, np.array([0]), np.array([0]))
    assert (piece.tobytes(), cast.tobytes()) == before
