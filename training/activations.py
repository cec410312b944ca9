"""What the forward pass keeps for the backward pass, counted on the meta device.

Korthikanti et al. (2205.05198, equation 1) give a formula for one architecture:
s*b*h*(34 + 5*a*s/h) bytes a layer. Here the model's own forward pass runs on tensors without
memory, whatever its architecture, and every tensor that autograd keeps is counted once; on a layer
of theirs that comes to their 34*s*b*h and to what fused attention keeps instead of the scores. What
the meta device does not know of a real one is said by hand: which attention kernel it has, and what
autocast casts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer

LOSS_BYTES = 8
"""What the backward pass through the loss takes a logit: its gradient in float32, twice, behind the
softmax and before it."""

AUTOCAST_DOWN = {
    functional.linear,
    functional.conv1d,
    functional.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    torch.baddbmm,
    torch.addmm,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
}
"""What autocast computes in bfloat16."""

AUTOCAST_UP = {functional.layer_norm, functional.softmax, torch.softmax, Tensor.softmax}
"""What autocast computes in float32, on GPUs."""


@dataclass(frozen=True)
class Shape:
    """What goes through the model at once."""

    family: str
    sequences: int
    length: int
    """Tokens of a sequence; of what is read, where the model reads and writes apart."""
    answer_length: int = 0
    """Tokens of what a model that writes is to write: the last ones of a causal model's sequence.
    Only they have logits."""


@dataclass(frozen=True)
class Kept:
    """Bytes that are live when the backward pass begins, weights aside."""

    whole: int
    checkpointed: int
    """The same with activation checkpointing: the layers' inputs, and one layer computed again."""


@dataclass
class _Tape:
    """Notes every storage that is kept, and the layer that was running."""

    ignored: set[int]
    """Storages of weights: they are there anyway."""
    layer: int | None = None
    inside: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of what a layer keeps: its number, and bytes."""
    outside: dict[int, int] = field(default_factory=dict)
    """Of the layers' inputs, and of what is kept elsewhere."""
    alive: list[Tensor] = field(default_factory=list)
    """A storage's address is taken again when it is gone."""

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.ignored:
            self.alive.append(tensor)
            if self.layer is None:
                self.outside[storage._cdata] = storage.nbytes()
            else:
                self.inside.setdefault(storage._cdata, (self.layer, storage.nbytes()))
        return tensor

    def enter(self, layer: int, inputs: Iterable[Any]) -> None:
        self.layer = None
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                self.pack(tensor)
        self.layer = layer

    def leave(self) -> None:
        self.layer = None

    def kept(self, beside: int) -> Kept:
        """The sums, and with them bytes that are live beside what is kept."""
        layers: dict[int, int] = {}
        inside = 0
        for storage, (layer, size) in self.inside.items():
            if storage not in self.outside:
                layers[layer] = layers.get(layer, 0) + size
                inside += size
        outside = sum(self.outside.values()) + beside
        return Kept(outside + inside, outside + max(layers.values(), default=0))


class _Device(TorchFunctionMode):
    """Makes the meta device keep what a GPU or a CPU keeps."""

    def __init__(self, *, gpu: bool, autocast: bool) -> None:
        super().__init__()
        self._gpu = gpu
        self._autocast = autocast
        self._cast: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._autocast and func in AUTOCAST_DOWN:
            args, kwargs = self._all_to(torch.bfloat16, args, kwargs)
        elif self._autocast and func in AUTOCAST_UP:
            args, kwargs = self._all_to(torch.float32, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            return _attend(*args, **kwargs, gpu=self._gpu)
        return func(*args, **kwargs)

    def _all_to(self, dtype: torch.dtype, args: Any, kwargs: Any) -> Any:
        def to(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.bfloat16):
                return value
            if not isinstance(value, nn.Parameter):
                return value.to(dtype)
            # Autocast keeps its copy of a weight until the backward pass is through.
            if id(value) not in self._cast:
                self._cast[id(value)] = value.to(dtype)
            return self._cast[id(value)]

        return [to(value) for value in args], {name: to(value) for name, value in kwargs.items()}


def _attend(  # noqa: PLR0917  (torch's own arguments)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    gpu: bool,
) -> Tensor:
    """Attention by the kernel that torch takes: a fused one wherever it can."""
    # That of CPUs knows neither dropout nor a mask that learns, as T5's does.
    learns = attn_mask is not None and attn_mask.requires_grad
    if not gpu and (dropout_p or learns):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None:
        whole = attn_mask.expand(-1, -1, query.shape[-2], -1)
        attn_mask = torch.empty_like(whole, dtype=query.dtype)
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    fused: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return fused


def count_activations(model: nn.Module, shape: Shape, *, gpu: bool, autocast: bool) -> Kept:
    """Run a forward pass and its loss on the meta device, and count what is kept.

    Args:
        model: On the meta device, in training mode, with weights of the type that they have.
        shape: Of the input.
        gpu: Whether it stands for a GPU.
        autocast: Whether the arithmetic is bfloat16 on float32 weights.
    """
    own = [*model.parameters(), *model.buffers()]
    tape = _Tape({tensor.untyped_storage()._cdata for tensor in own})
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(
                layer.register_forward_pre_hook(
                    lambda _, args, kwargs, n=number: tape.enter(n, tree_leaves((args, kwargs))),
                    with_kwargs=True,
                ).remove
            )
            stack.callback(layer.register_forward_hook(lambda *_: tape.leave()).remove)
        stack.enter_context(torch.device("meta"))
        stack.enter_context(_Device(gpu=gpu, autocast=autocast))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(tape.pack, lambda kept: kept))
        logits = model(**_inputs(shape)).logits
        targets = torch.zeros(logits.shape[:-1], dtype=torch.long).flatten()
        loss = functional.cross_entropy(logits.float().flatten(0, -2), targets, reduction="sum")
    kept = tape.kept(beside=logits.numel() * LOSS_BYTES)
    del loss  # until here it has held what is kept
    return kept


def _inputs(shape: Shape) -> dict[str, Tensor]:
    """Token ids without memory.

    The mask has four dimensions: of one in two, models look at the values.
    """
    rows, length = shape.sequences, shape.length
    inputs = {
        "input_ids": torch.zeros(rows, length, dtype=torch.long),
        "attention_mask": torch.ones(rows, 1, 1, length, dtype=torch.bool),
    }
    if shape.family == "causal":
        inputs["logits_to_keep"] = torch.arange(length - shape.answer_length - 1, length - 1)
    if shape.family == "seq2seq":
        inputs["decoder_input_ids"] = torch.zeros(rows, shape.answer_length, dtype=torch.long)
    return inputs
