"""The suite: real programs as plain JAX functions with abstract arguments.

Every entry of `SUITE` is a function without arguments that returns `(fn, args)`: a JAX function and
a tuple of pytrees of `jax.ShapeDtypeStruct`. Nothing is computed or compiled here. Weights are bf16
unless said otherwise, as in deployment; the moments of training steps are float32.
"""

from __future__ import annotations

from collections.abc import Callable

from workloads.programs.common import Workload
from workloads.programs.decoding import decode, decode_gqa, decode_int8, decode_long, decode_wide
from workloads.programs.depthwise import convnext, efficientnet
from workloads.programs.diffusion import text_to_image
from workloads.programs.encoders import bert, encoder_decoder
from workloads.programs.flax_models import mixer, unet, vit
from workloads.programs.images import alexnet, resnet50, resnet101, vgg16
from workloads.programs.language import (
    moe,
    prefill,
    prefill_batch,
    prefill_long,
    scan_transformer,
    transformer,
)
from workloads.programs.memory_bound import adam_step, heat, norm_chain, sinkhorn
from workloads.programs.recurrent import lstm, mamba, wavenet
from workloads.programs.tables import dlrm, strassen, strassen_wide, winograd
from workloads.programs.training import train_cnn, train_mlp, train_transformer
from workloads.programs.training_deep import train_lstm, train_resnet, train_vit

SUITE: dict[str, Callable[[], Workload]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "vit": vit,
    "mixer": mixer,
    "unet": unet,
    "text_to_image": text_to_image,
    "transformer": transformer,
    "scan_transformer": scan_transformer,
    "bert": bert,
    "encoder_decoder": encoder_decoder,
    "moe": moe,
    "prefill": prefill,
    "prefill_long": prefill_long,
    "prefill_batch": prefill_batch,
    "decode": decode,
    "decode_gqa": decode_gqa,
    "decode_long": decode_long,
    "decode_wide": decode_wide,
    "decode_int8": decode_int8,
    "lstm": lstm,
    "mamba": mamba,
    "wavenet": wavenet,
    "dlrm": dlrm,
    "strassen": strassen,
    "strassen_wide": strassen_wide,
    "winograd": winograd,
    "norm_chain": norm_chain,
    "sinkhorn": sinkhorn,
    "heat": heat,
    "adam_step": adam_step,
    "train_mlp": train_mlp,
    "train_cnn": train_cnn,
    "train_transformer": train_transformer,
    "train_resnet": train_resnet,
    "train_vit": train_vit,
    "train_lstm": train_lstm,
}
