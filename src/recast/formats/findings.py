"""What is wrong or surprising in a checkpoint, each thing under a name of its own."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint, Shard, Weights, main_dtype
from recast.formats.config import Config, DtypeClaim
from recast.formats.header import TensorInfo
from recast.formats.hub_path import HubPath
from recast.formats.names import Role, is_shard

_NAMED_AT_MOST = 3  # tensors or files spelled out in one sentence
# How libraries name what goes with packed weights: GPTQ and AWQ, compressed-tensors,
# bitsandbytes, and FP8 or int8 checkpoints (DeepSeek, ModelOpt, llm.int8).
_PACKED = frozenset(
    [
        *("qweight", "qzeros", "g_idx"),
        *("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
        *("SCB", "absmax", "quant_map", "nested_absmax", "nested_quant_map"),
        *("weight_scale_inv", "weight_scale_2", "w_scale"),
    ]
)
_PACKED_PART = ".quant_state."
# What else gives codes away: integers of these dtypes that have scales, or what a header says.
_CODES = frozenset([Dtype.I8, Dtype.U8, Dtype.I16, Dtype.U16, Dtype.I32, Dtype.U32])
_SCALES = ("scale", "scales", "zeros", "zero_point", "absmax")
_METHOD_KEYS = ("quantization", "quant_method")
_NO_METHOD = frozenset(["", "none", "null", "false", "{}"])


class Severity(StrEnum):
    """How much a finding matters: an ERROR stops a conversion, a WARNING is put right by one."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


# Every name that a finding may have; docs/findings.md has symptom, cause and cure of each.
SEVERITIES: Mapping[str, Severity] = {
    "ambiguous-weights": Severity.ERROR,
    "config-mismatch": Severity.WARNING,
    "empty-tensors": Severity.ERROR,
    "missing-shard": Severity.ERROR,
    "missing-tensors": Severity.ERROR,
    "mixed-dtypes": Severity.NOTE,
    "no-dtype-key": Severity.NOTE,
    "no-format-metadata": Severity.NOTE,
    "non-finite-values": Severity.WARNING,
    "oversized": Severity.WARNING,
    "quantized": Severity.ERROR,
    "trainer-state": Severity.NOTE,
    "unindexed-tensors": Severity.ERROR,
    "wrong-total-size": Severity.WARNING,
}
BLOCKING = tuple(name for name, each in SEVERITIES.items() if each is Severity.ERROR)

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One named thing that is wrong or surprising.

    Attributes:
        name: what it is called in the documentation and by options: ``missing-shard``.
        severity: how much it matters.
        subject: the file, or the tensor, concerned.
        problem: what is the matter, in a sentence without its subject.
        remedy: the way out.
        tensors: the tensors concerned, where it is not the file as a whole.
        command: what to type to get there, where one command does it.
    """

    name: str
    severity: Severity
    subject: str
    problem: str
    remedy: str
    tensors: tuple[str, ...] = ()
    command: str = ""

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.subject}: {self.problem}; {self.remedy}"


def findings(checkpoint: Checkpoint, *, base: Checkpoint | None = None) -> tuple[Finding, ...]:
    """Return all that is wrong or surprising in *checkpoint*, what blocks it first.

    Args:
        checkpoint: what `inspect` returned.
        base: the model it was trained from, if known: nothing needs to be wider than there.

    Example:
        >>> checkpoint = recast.inspect("./ckpt")  # doctest: +SKIP
        >>> [finding.name for finding in recast.findings(checkpoint)]  # doctest: +SKIP
        ['config-mismatch']
    """
    quantized = tuple(_quantized(checkpoint))
    found = (
        *quantized,
        *_ambiguous(checkpoint),
        *(
            finding
            for weights in checkpoint.weights
            for finding in _incomplete(checkpoint, weights)
        ),
        *(finding for weights in checkpoint.weights for finding in _misindexed(weights)),
        *_empty(checkpoint),
        *(() if quantized else _oversized(checkpoint)),
        *(() if base is None else _wider_than(base, checkpoint)),
        *_claims(checkpoint),
        *_index_claims(checkpoint),
        *_totals(checkpoint),
        *(() if quantized else _mixed(checkpoint)),
        *_header_metadata(checkpoint),
        *_trainer_state(checkpoint),
    )
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def _quantized(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find signs that the values stored are codes, whose scales must not be narrowed."""
    remedy = "convert the model it was quantized from"
    for config in checkpoint.configs.values():
        if config.quantization is not None:
            problem = f"the model is quantized ({config.quantization})"
            yield Finding("quantized", Severity.ERROR, config.name, problem, remedy)
    scaled = _scaled(checkpoint)
    for shard in checkpoint.shards:
        if sign := _sign_of_quantization(shard, scaled):
            problem = f"{sign}: the model is quantized"
            yield Finding("quantized", Severity.ERROR, shard.name, problem, remedy)


def _sign_of_quantization(shard: Shard, scaled: frozenset[str]) -> str | None:
    """Return the first sign in *shard* that its values are codes, or None."""
    for key in _METHOD_KEYS:
        method = (shard.header.metadata or {}).get(key, "")
        if method.strip().lower() not in _NO_METHOD:
            return f"the header metadata say {key} = {method!r}"
    for name, tensor in shard.header.tensors.items():
        if tensor.dtype.is_packed:
            return f"tensor {name!r} is stored as {tensor.dtype}"
        if name.rpartition(".")[2] in _PACKED or _PACKED_PART in name:
            return f"tensor {name!r} belongs to packed weights"
        if tensor.dtype in _CODES and _is_scaled(name, scaled):
            return f"tensor {name!r} is stored as {tensor.dtype}, with scales beside it"
    return None


def _scaled(checkpoint: Checkpoint) -> frozenset[str]:
    """Return the beginnings of names that tensors have a scale for.

    "x.weight" for a scale "x.weight_scale", "x." for "x.scales", "x.weight." for "x.weight.absmax".
    """
    return frozenset(
        name.removesuffix(end).rstrip("_")
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
        if name.endswith(_SCALES) and tensor.dtype.is_floating
        for end in _SCALES
        if name.endswith(end)
    )


def _is_scaled(name: str, scaled: frozenset[str]) -> bool:
    """Whether one of the beginnings in *scaled* is one of the last part of *name*, or all of it."""
    first = name.rfind(".") + 1
    return f"{name}." in scaled or any(name[:end] in scaled for end in range(first, len(name) + 1))


def _ambiguous(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find a single file that loaders prefer to the index beside it."""
    names = {weights.name for weights in checkpoint.weights}
    for weights in checkpoint.weights:
        single = _single_twin(weights.name)
        if weights.index is not None and single in names:
            yield Finding(
                "ambiguous-weights",
                Severity.ERROR,
                single,
                f"lies beside {weights.name}, and transformers loads it instead of the shards",
                "delete or move away the stale one, or convert both: --allow ambiguous-weights",
            )


def _single_twin(index: str) -> str:
    """Return the name under which *index*'s tensors would lie in one file."""
    stem, _, variant = index.removesuffix(".json").partition(".safetensors.index")
    return f"{stem}{variant}.safetensors"


def _incomplete(checkpoint: Checkpoint, weights: Weights) -> Iterator[Finding]:
    """Find shards without a file, and shards without an index."""
    left_out = {file.name: file.role for file in checkpoint.left_out}
    for missing in weights.missing_shards:
        if role := left_out.get(missing):
            problem = f"is named in {weights.name}, but its folder is left out as {role.value}"
            remedy = "move it out of that folder, and name it there"
        else:
            problem = f"is named in {weights.name} but is not there"
            remedy = "download or copy it again"
        yield Finding("missing-shard", Severity.ERROR, missing, problem, remedy)
    # Who names one shard alone means that one, and no index beside it is looked at.
    if weights.index is None and is_shard(weights.name) and not checkpoint.is_file:
        yield Finding(
            "unindexed-tensors",
            Severity.ERROR,
            weights.name,
            "is numbered as a shard, but no index names it",
            "restore the index, move a stale shard away, or --allow unindexed-tensors "
            "to convert it too",
        )


def _misindexed(weights: Weights) -> Iterator[Finding]:
    """Find tensors on which the index and the shards disagree."""
    if weights.index is None:
        return
    weight_map = weights.index.weight_map
    for shard in weights.shards:
        stored = shard.header.tensors.keys()
        if extra := [name for name in stored if weight_map.get(name) != shard.name]:
            yield Finding(
                "unindexed-tensors",
                Severity.ERROR,
                shard.name,
                f"holds {_listed(extra)}, which {weights.name} does not place there",
                "put the index right, or --allow unindexed-tensors to convert them where they are",
            )
    present = {shard.name: shard.header.tensors.keys() for shard in weights.shards}
    absent = [
        name
        for name, shard in weight_map.items()
        if shard in present and name not in present[shard]
    ]
    if absent:
        yield Finding(
            "missing-tensors",
            Severity.ERROR,
            weights.name,
            f"places {_listed(absent)} in {weight_map[absent[0]]}, which does not hold it",
            "download or copy that shard again",
            tuple(absent),
        )


def _empty(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights without a value: what a ZeRO-3 rank holds when nothing was gathered."""
    for shard in checkpoint.shards:
        empty = [
            name
            for name, tensor in shard.header.tensors.items()
            if tensor.dtype.is_floating and tensor.shape == (0,) and name.endswith(".weight")
        ]
        if empty:
            yield Finding(
                "empty-tensors",
                Severity.ERROR,
                shard.name,
                f"holds {_listed(empty)} without a value: a ZeRO-3 save that gathered nothing",
                "gather them from the global_step folder beside it",
                tuple(empty),
                _gathering(checkpoint),
            )


def _gathering(checkpoint: Checkpoint) -> str:
    """Return the command that gathers a ZeRO-3 save; nothing for one that is not here."""
    if isinstance(checkpoint.path, HubPath):
        return ""
    folder = checkpoint.path.parent if checkpoint.is_file else checkpoint.path
    script = [str(folder / "zero_to_fp32.py"), str(folder), f"{folder}-whole"]
    return shlex.join(["python", *script, "--safe_serialization"])


def _oversized(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights that are stored wider than their config says."""
    for config in checkpoint.configs.values():
        stored = main_dtype(checkpoint.shards_of(config))
        if stored is None or (claimed := _narrower(config, stored)) is stored:
            continue
        yield Finding(
            "oversized",
            Severity.WARNING,
            config.name,
            f"says {claimed.torch_name}, but most of what is stored is {stored.torch_name}, "
            f"{stored.bits // claimed.bits} times as large",
            f"convert it to {claimed.short_name}",
            command=_conversion(checkpoint, claimed),
        )


def _narrower(config: Config, stored: Dtype) -> Dtype:
    """Return the dtype that *config* claims first, or *stored* if that is no wider."""
    claimed = next((each.dtype for each in config.claims if each.dtype is not None), None)
    return claimed if claimed in TARGETS and claimed.bits < stored.bits else stored


def _wider_than(base: Checkpoint, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights that are stored wider than in the model they were trained from."""
    known = {name: each for shard in base.shards for name, each in shard.header.tensors.items()}
    for shard in checkpoint.shards:
        wider = [
            name
            for name, tensor in _floating(shard)
            if name in known and known[name].dtype.is_floating
            if tensor.dtype.bits > known[name].dtype.bits
        ]
        if wider:
            yield Finding(
                "oversized",
                Severity.WARNING,
                shard.name,
                f"stores {_listed(wider)} wider than {base.path} does",
                "convert it to the dtype of its base",
                tuple(wider),
                _conversion(checkpoint, main_dtype(base.shards)),
            )


def _mixed(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find floating tensors stored in another dtype than most of those beside them."""
    for weights in checkpoint.weights:
        main = main_dtype(weights.shards)
        if main is None:
            continue
        others: dict[Dtype, list[str]] = {}
        for shard in weights.shards:
            for name, tensor in _floating(shard):
                if tensor.dtype is not main:
                    others.setdefault(tensor.dtype, []).append(name)
        for dtype, names in others.items():
            kinds = list(dict.fromkeys(_NUMBER.sub("*", name) for name in names))
            yield Finding(
                "mixed-dtypes",
                Severity.NOTE,
                weights.name,
                f"stores {len(names):,} of its tensors as {dtype.torch_name}, most as "
                f"{main.torch_name}: {_listed(kinds)}",
                "see which of them a conversion would keep",
                tuple(names),
                f"{_conversion(checkpoint, main)} -n",
            )


def _floating(shard: Shard) -> Iterator[tuple[str, TensorInfo]]:
    """Yield the tensors of *shard* that could be cast."""
    for name, tensor in shard.header.tensors.items():
        if tensor.dtype.is_floating:
            yield name, tensor


def _claims(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find dtype keys that say something else than what is stored."""
    for config in checkpoint.configs.values():
        stored = main_dtype(checkpoint.shards_of(config))
        if stored is None:
            continue
        command = _conversion(checkpoint, _narrower(config, stored))
        yield from _mismatches(config.name, config.claims, stored, command)
        if config.lacks_dtype:
            yield Finding(
                "no-dtype-key",
                Severity.NOTE,
                config.name,
                "says no dtype, so that loaders guess",
                "converting adds torch_dtype",
                command=_conversion(checkpoint, stored),
            )


def _mismatches(
    subject: str, claims: Iterable[DtypeClaim], stored: Dtype, command: str
) -> Iterator[Finding]:
    """Find claims of another dtype; and of the right one in words that loaders fail on."""
    wrong = [claim for claim in claims if claim.value != stored.torch_name]
    if not wrong:
        return
    listed = ", ".join(map(str, wrong))
    if all(claim.dtype is stored for claim in wrong):
        problem = f"says {listed}, which loaders may not know: it is spelled {stored.torch_name}"
    else:
        problem = f"says {listed}, but most of what is stored is {stored.torch_name}"
    remedy = "converting puts it right"
    yield Finding("config-mismatch", Severity.WARNING, subject, problem, remedy, command=command)


def _index_claims(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find index metadata that says another dtype than what is stored."""
    for weights in checkpoint.weights:
        stored = main_dtype(weights.shards)
        if weights.index is not None and weights.index.claims_dtype and stored is not None:
            claim = DtypeClaim(("metadata", "dtype"), weights.index.dtype)
            command = _conversion(checkpoint, stored)
            yield from _mismatches(weights.name, (claim,), stored, command)


def _totals(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find index metadata that does not add up."""
    for weights in checkpoint.weights:
        if weights.index is None or weights.missing_shards:
            continue
        claimed, stored = weights.index.total_size, weights.data_size
        if weights.index.metadata is None:
            problem = "has no metadata, which transformers requires"
        elif claimed != stored:
            problem = f"says total_size = {claimed}, but the tensors take {stored} bytes"
        else:
            continue
        yield Finding(
            "wrong-total-size",
            Severity.WARNING,
            weights.name,
            problem,
            "converting puts it right",
            command=_conversion(checkpoint, main_dtype(weights.shards)),
        )


def _header_metadata(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find shards that transformers 4 refuses for want of one string."""
    for shard in checkpoint.shards:
        if "format" not in (shard.header.metadata or {}):
            yield Finding(
                "no-format-metadata",
                Severity.NOTE,
                shard.name,
                "has no format in its header metadata, without which transformers 4 fails",
                "converting adds it",
                command=_conversion(checkpoint, main_dtype(checkpoint.shards)),
            )


def _trainer_state(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find what only a trainer that goes on needs."""
    files = [each for each in checkpoint.left_out if each.role is Role.TRAINER_STATE]
    if files:
        size = sum(each.size for each in files)
        together = f"and {len(files) - 1:,} more are" if len(files) > 1 else "is"
        yield Finding(
            "trainer-state",
            Severity.NOTE,
            files[0].name,
            f"{together} trainer state: {size:,} bytes that no loader reads",
            "conversions leave it out; delete it when training is done",
        )


def _conversion(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that converts *checkpoint* to *dtype*, or to bf16 if it cannot."""
    target = dtype if dtype in TARGETS else Dtype.BF16
    return shlex.join(["recast", str(checkpoint.path), "--to", target.short_name])


def _listed(names: list[str]) -> str:
    """Return the first few of *names*, and how many more there are."""
    some = ", ".join(repr(name) for name in names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{some} and {more} more" if more > 0 else some
