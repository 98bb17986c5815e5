"""A piece of a tensor → its values in the target dtype.

Every cast equals torch's ``tensor.to(dtype)``, bit for bit; NaN stays NaN. To bf16 and fp32
the kernels are numpy's and ml_dtypes', which load in a fraction of the time; to fp16 it is
torch, since numpy takes ten times as long.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype

Array = NDArray[Any]
Kernel = Callable[[Array, Array], None]

NUMPY_DTYPES: dict[Dtype, np.dtype[Any]] = {
    Dtype.F16: np.dtype("<f2"),
    Dtype.BF16: np.dtype(ml_dtypes.bfloat16),
    Dtype.F32: np.dtype("<f4"),
    Dtype.F64: np.dtype("<f8"),
}


def kernel(source: Dtype, target: Dtype) -> Kernel:
    """Return the function that casts an array of *source* into one of *target*."""
    if target is Dtype.F16:
        return _torch_kernel(source, target)
    if target is Dtype.BF16 and source is not Dtype.F32:
        return _cast_by_way_of_fp32  # as torch does: bfloat16 is made from a float
    return _cast


def _cast(source: Array, out: Array) -> None:
    """Round *source* to nearest even into *out*."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        np.copyto(out, source, casting="unsafe")


def _cast_by_way_of_fp32(source: Array, out: Array) -> None:
    """Round *source* to fp32, and that into *out*."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        np.copyto(out, source.astype("<f4"), casting="unsafe")


def _torch_kernel(source: Dtype, target: Dtype) -> Kernel:
    """Return torch's own cast."""
    import torch  # noqa: PLC0415 - takes seconds to load, and only fp16 needs it

    def tensor(array: Array, dtype: Dtype) -> torch.Tensor:
        # numpy has no bfloat16 of its own to hand over, so the bits go.
        bits: torch.Tensor = torch.from_numpy(array.view(f"<i{array.itemsize}"))
        view: torch.Tensor = bits.view(getattr(torch, dtype.torch_name))
        return view

    def cast(from_: Array, out: Array) -> None:
        tensor(out, target).copy_(tensor(from_, source))

    return cast
