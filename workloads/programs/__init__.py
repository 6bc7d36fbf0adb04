"""The suite: real programs as plain JAX functions with abstract arguments.

Every entry of `SUITE` is a function without arguments that returns `(fn, args)`: a JAX function and
a tuple of pytrees of `jax.ShapeDtypeStruct`. Nothing is computed or compiled here. Weights are bf16
unless said otherwise, as in deployment; the moments of training steps are float32.
"""

from __future__ import annotations

from collections.abc import Callable

from workloads.programs.common import Shape, Workload
from workloads.programs.decoding import decode, decode_gqa
from workloads.programs.flax_models import mixer, unet, vit
from workloads.programs.images import alexnet, resnet50
from workloads.programs.language import moe, prefill, scan_transformer, transformer
from workloads.programs.recurrent import lstm, mamba, wavenet
from workloads.programs.tables import dlrm, strassen
from workloads.programs.training import train_cnn, train_mlp, train_transformer

SUITE: dict[str, Callable[[], Workload]] = {
    "alexnet": alexnet,
    "resnet50": resnet50,
    "vit": vit,
    "mixer": mixer,
    "unet": unet,
    "transformer": transformer,
    "scan_transformer": scan_transformer,
    "moe": moe,
    "prefill": prefill,
    "decode": decode,
    "decode_gqa": decode_gqa,
    "lstm": lstm,
    "mamba": mamba,
    "wavenet": wavenet,
    "dlrm": dlrm,
    "strassen": strassen,
    "train_mlp": train_mlp,
    "train_cnn": train_cnn,
    "train_transformer": train_transformer,
}

__all__ = ["SUITE", "Shape", "Workload", *SUITE]
