"""What a run takes from the machine that it runs on: device, precision and number of threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration

from hemascope.errors import HemascopeWarning, TrainingError
from hemascope.processors import count_processors
from hemascope.training.recipe import Recipe

NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, ARM
ISAS_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
"""Values of ONEDNN_MAX_CPU_ISA, by which somebody may keep oneDNN from what a processor has."""


def settle_precision(recipe: Recipe) -> Recipe:
    """The recipe with what `auto` becomes on this machine; one that says its precision as it is."""
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bf16" if has_native_bf16() else "fp32")


def has_native_bf16() -> bool:
    """Whether the GPU, or without any the processor, computes in bfloat16 by itself."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.accelerator.is_available():  # of another maker, where nothing was measured
        return False
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    has = _processor_capabilities()
    return allowed.upper() not in ISAS_WITHOUT_BF16 and any(has.get(name) for name in NATIVE_BF16)


def warn_of_slow_precision(recipe: Recipe) -> None:
    """Warns where a recipe says bf16 and this machine has to imitate it."""
    is_known = torch.cuda.is_available() or not torch.accelerator.is_available()
    if recipe.precision == "bf16" and is_known and not has_native_bf16():
        device = "GPU" if torch.cuda.is_available() else "processor"
        warnings.warn(
            f"this {device} does not compute in bf16 and has to imitate it, which may take many "
            "times as long as fp32; a new run with --precision auto or fp32 is faster",
            HemascopeWarning,
            stacklevel=2,
        )


def limit_threads() -> None:
    """Keeps torch to the processors that this process may use, unless OMP_NUM_THREADS says more."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), count_processors()))


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Where a recipe is trained, and in which precision; TrainingError where it cannot be."""
    # Accelerate keeps one state a process; without this a second run would get the first's
    # precision.
    AcceleratorState._reset_state()
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise TrainingError("fp16 needs a GPU; on a processor use bf16 or fp32")
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.accelerator.is_available(),  # else several processes would not find another
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    if recipe.batch_size % accelerator.num_processes:
        raise TrainingError(
            f"batch size {recipe.batch_size} cannot be shared by {accelerator.num_processes} "
            "processes; make it a multiple of them"
        )
    return accelerator


def _processor_capabilities() -> Mapping[str, object]:
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}  # older versions of torch
