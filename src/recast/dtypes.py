"""Dtype: a safetensors dtype tag, the bits of one element, and the names people type."""

from enum import StrEnum
from typing import Self

from recast.errors import DtypeError


class Dtype(StrEnum):
    """A safetensors dtype tag and the bits of one element.

    Members stand in the order in which safetensors sorts them; it writes the last one
    first (``Dtype`` in safetensors' ``tensor.rs``).
    """

    bits: int

    BOOL = "BOOL", 8
    F4 = "F4", 4
    F6_E2M3 = "F6_E2M3", 6
    F6_E3M2 = "F6_E3M2", 6
    U8 = "U8", 8
    I8 = "I8", 8
    F8_E5M2 = "F8_E5M2", 8
    F8_E4M3 = "F8_E4M3", 8
    F8_E8M0 = "F8_E8M0", 8
    F8_E4M3FNUZ = "F8_E4M3FNUZ", 8
    F8_E5M2FNUZ = "F8_E5M2FNUZ", 8
    I16 = "I16", 16
    U16 = "U16", 16
    F16 = "F16", 16
    BF16 = "BF16", 16
    I32 = "I32", 32
    U32 = "U32", 32
    F32 = "F32", 32
    C64 = "C64", 64
    F64 = "F64", 64
    I64 = "I64", 64
    U64 = "U64", 64

    def __new__(cls, tag: str, bits: int) -> Self:
        """Make the member *tag*, whose elements have *bits* bits."""
        member = str.__new__(cls, tag)
        member._value_, member.bits = tag, bits
        return member

    @classmethod
    def of_tag(cls, tag: str) -> "Dtype":
        """Return the dtype of a safetensors tag. Raises KeyError if there is none."""
        return cls.__members__[tag]

    @property
    def is_floating(self) -> bool:
        """Whether recast may cast tensors of this dtype: F64, F32, F16, BF16."""
        return self in _FLOATING

    @property
    def is_packed(self) -> bool:
        """Whether this dtype is one of 8 bits or fewer that only quantized models use."""
        return self.startswith(("F8_", "F6_", "F4"))

    def holds(self, other: "Dtype") -> bool:
        """Whether every value of *other* is one of this dtype: casting to it loses nothing."""
        return other is self or (other, self) in _EXACT

    @property
    def torch_name(self) -> str:
        """The bare torch name, as config.json writes it: ``bfloat16``; else the tag."""
        return _TORCH_NAMES.get(self, self.value)

    @property
    def short_name(self) -> str:
        """The name for a folder or an option: ``bf16``; else the tag in lower case."""
        return _SHORT_NAMES.get(self, self.value.lower())


_TORCH_NAMES = {
    Dtype.BF16: "bfloat16",
    Dtype.F16: "float16",
    Dtype.F32: "float32",
    Dtype.F64: "float64",
}
_SHORT_NAMES = {Dtype.BF16: "bf16", Dtype.F16: "fp16", Dtype.F32: "fp32", Dtype.F64: "fp64"}
_FLOATING = frozenset(_TORCH_NAMES)
_EXACT = frozenset(
    [
        (Dtype.BF16, Dtype.F32),
        (Dtype.F16, Dtype.F32),
        (Dtype.BF16, Dtype.F64),
        (Dtype.F16, Dtype.F64),
        (Dtype.F32, Dtype.F64),
    ]
)

# Everything people type for a float dtype, in lower case and without "torch.".
_SPELLINGS = {
    "bf16": Dtype.BF16,
    "bfloat16": Dtype.BF16,
    "fp16": Dtype.F16,
    "f16": Dtype.F16,
    "float16": Dtype.F16,
    "half": Dtype.F16,
    "fp32": Dtype.F32,
    "f32": Dtype.F32,
    "float32": Dtype.F32,
    "float": Dtype.F32,
    "single": Dtype.F32,
    "full": Dtype.F32,
    "fp64": Dtype.F64,
    "f64": Dtype.F64,
    "float64": Dtype.F64,
    "double": Dtype.F64,
}

TARGETS = (Dtype.BF16, Dtype.F16, Dtype.F32)


def named(dtype: object) -> Dtype | None:
    """Return the float dtype that *dtype* names, or None if it names none.

    *dtype* is a string in any case, with or without ``torch.``; a ``torch.dtype``; or a
    scalar type such as ``numpy.float16`` or ``ml_dtypes.bfloat16``. Python's own ``float`` has
    64 bits and is called like torch's name for 32: it names neither.
    """
    if dtype is float:
        return None
    spelling = dtype.__name__ if isinstance(dtype, type) else str(dtype)
    return _SPELLINGS.get(spelling.strip().lower().removeprefix("torch."))


def target(dtype: object) -> Dtype:
    """Return the dtype to convert to that *dtype* names, in any spelling of `named`.

    Raises DtypeError, with the list of known names, if recast cannot convert to it.
    """
    found = named(dtype)
    if found not in TARGETS:
        known = ", ".join(f"{each.short_name} ({each.torch_name})" for each in TARGETS)
        raise DtypeError(str(dtype), "is not a dtype recast converts to", f"choose one of {known}")
    return found
