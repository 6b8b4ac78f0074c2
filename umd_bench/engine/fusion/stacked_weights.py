"""Weights of S models of one shape that act as one model's weights in the model's own forward pass.

Each row of a batch belongs to one model. Rows are ordered by model, with ``counts`` rows each; counts may differ and be 0. A
:class:`Stacked` weight shows the model's code the shape of one model's weight. An operation on rows applies to each row the
weight of its own model. So the model's own forward pass, called through ``torch.func.functional_call``, computes all models at
once: operations without weights (attention, GELU, softmax) see one long batch, and a matrix product is one batched product, or
one product per model into a shared result if the counts differ.

Compared with ``torch.func.vmap`` over the same forward pass, this does not batch operations without weights, and it allows
unequal numbers of rows (docs/fusion.md has the measurements). An operation that :data:`RULES` lacks raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rows:
    """Which rows of a batch belong to which model: ``counts`` rows each, ordered by model."""

    def __init__(self, counts: Iterable[int], device: torch.device) -> None:
        self.counts = tuple(counts)
        self.total = sum(self.counts)
        self.even = len({*self.counts}) == 1
        models = torch.arange(len(self.counts))
        self.model_of = models.repeat_interleave(torch.tensor(self.counts)).to(device)  # [R] int64

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows of each model: [R, ...] -> S tensors [counts[s], ...]."""
        return torch.split(x, list(self.counts))

    def spread(self, values: Tensor) -> Tensor:
        """The value of each row's model: [S, ...] -> [R, ...]."""
        if self.even:
            S = len(self.counts)
            return values.unsqueeze(1).expand(S, self.counts[0], *values.shape[1:]).reshape(self.total, *values.shape[1:])
        return values.index_select(0, self.model_of)


class Stacked(Tensor):
    """One weight of S models, stored as [S, ...], that shows the shape of one model's. Create it by :func:`stack_for`."""

    rows: Rows

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule = RULES.get(func)
        if rule is None:
            name = getattr(func, "__qualname__", str(func))
            raise NotImplementedError(
                f"{name} has no rule for the weights of several models: add one to engine/fusion/stacked_weights.py"
            )
        return rule(*args, **(kwargs or {}))


def stack_for(weights: Mapping[str, Tensor], rows: Rows) -> dict[str, Tensor]:
    """Stacked weights for a call with these rows; gradients flow to ``weights`` [S, ...]."""
    return {name: _wrapped(value, rows) for name, value in weights.items()}


def _wrapped(value: Tensor, rows: Rows) -> Stacked:
    stacked = value.as_subclass(Stacked)
    stacked.rows = rows
    return stacked


def _plain(stacked: Stacked) -> Tensor:
    """The stored tensor [S, ...]."""
    with torch._C.DisableTorchFunctionSubclass():
        return stacked.as_subclass(Tensor)


def _rows_of(stacked: Stacked) -> Rows:
    with torch._C.DisableTorchFunctionSubclass():
        return stacked.rows


def _shape(stacked: Stacked) -> torch.Size:
    with torch._C.DisableTorchFunctionSubclass():
        return stacked.shape[1:]


class _UnevenLinear(torch.autograd.Function):
    """``y_r = W_s x_r + b_s`` if models have different numbers of rows: one product per model, written into one result.

    ``x`` [R, I], ``weight`` [S, O, I], ``bias`` [S, O], ``counts`` rows of ``x`` per model -> [R, O].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, counts: tuple[int, ...]) -> Tensor:
        y = x.new_empty(len(x), weight.shape[1])
        of_rows = (torch.split(each, list(counts)) for each in (y, x))
        for out, part, w, b in zip(*of_rows, weight.mT.unbind(), bias.unbind(), strict=True):
            torch.addmm(b, part, w, out=out)
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        g, counts = gradients[0].contiguous(), ctx.counts
        g_x, g_weight, g_bias = torch.empty_like(x), weight.new_zeros(weight.shape), g.new_zeros(weight.shape[:2])
        of_rows = (torch.split(each, list(counts)) for each in (g, x, g_x))
        parts = zip(*of_rows, weight.unbind(), g_weight.unbind(), strict=True)
        for (g_s, x_s, out_x, w, out_w), out_b in zip(parts, g_bias.unbind(), strict=True):
            if len(g_s):
                torch.mm(g_s, w, out=out_x)
                torch.mm(g_s.T, x_s, out=out_w)
                torch.sum(g_s, 0, out=out_b)
        return g_x, g_weight, g_bias, None


# ---- rules: an operation of torch on rows [R, ...] and stacked weights


def _linear(x: Tensor, weight: Stacked, bias: Stacked | None = None) -> Tensor:
    """[R, ..., I], [O, I], [O] -> [R, ..., O]."""
    rows, w = _rows_of(weight), _plain(weight)
    S, O, I = w.shape  # noqa: E741 - output and input features
    if len(x) != rows.total:
        raise ValueError(f"{len(x)} rows were given to models that have {rows.counts}")
    b = w.new_zeros(S, O) if bias is None else _plain(bias)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, w, b = x.to(dtype), w.to(dtype), b.to(dtype)
    if rows.even:
        y: Tensor = torch.baddbmm(b.unsqueeze(1), x.reshape(S, -1, I), w.transpose(1, 2))
    else:
        tokens = x[0].numel() // I
        y = _UnevenLinear.apply(x.reshape(-1, I), w, b, tuple(count * tokens for count in rows.counts))
    return y.view(*x.shape[:-1], O)


def _matmul(x: Tensor, weight: Stacked) -> Tensor:
    """[R, ..., I] @ [I, O]."""
    return _linear(x, _wrapped(_plain(weight).transpose(1, 2), _rows_of(weight)))


def _layer_norm(x: Tensor, shape: Any, weight: Stacked, bias: Stacked, eps: float = 1e-5) -> Tensor:
    """Normalise without weights, then scale and shift each row by its model's weights. [R, N, D] -> [R, N, D]."""
    rows, normed = _rows_of(weight), F.layer_norm(x, shape, eps=eps)
    w, b = _plain(weight), _plain(bias)
    if rows.even:
        S, D = w.shape
        parts = normed.view(S, -1, D)
        return torch.addcmul(b.unsqueeze(1), parts, w.unsqueeze(1)).view(x.shape)
    shape_of_rows = (len(x), *(1,) * (x.ndim - 2), w.shape[1])
    return torch.addcmul(rows.spread(b).view(shape_of_rows), normed, rows.spread(w).view(shape_of_rows))


def _embedding(index: Tensor, weight: Stacked, *rest: Any, **settings: Any) -> Tensor:
    """Look up each row in its model's table: [R] -> [R, D]. ``nn.Embedding``'s other settings must be the defaults."""
    table = _plain(weight)
    return F.embedding(index + _rows_of(weight).model_of * table.shape[1], table.flatten(0, 1))


def _expand(weight: Stacked, *sizes: int) -> Tensor:
    """``weight[1, ...].expand(R, ...)``: the result has R rows and is not stacked."""
    rows, value = _rows_of(weight), _plain(weight)
    if value.shape[1] != 1 or sizes[0] != rows.total:
        raise ValueError(
            f"a weight {tuple(value.shape[1:])} cannot be expanded to {sizes[0]} rows of models that have {rows.counts}"
        )
    return rows.spread(value[:, 0]).expand(*sizes)


def _add(one: Tensor, other: Tensor) -> Tensor:
    """Add to each row its model's weight [1, ...]."""
    x, weight = (other, one) if isinstance(one, Stacked) else (one, other)
    assert isinstance(weight, Stacked)
    rows, value = _rows_of(weight), _plain(weight)
    value = value.reshape(len(value), *(1,) * (x.ndim - value.ndim + 1), *value.shape[1:])  # [S, 1, ...] under [R, ...]
    if value.shape[1] != 1 or len(x) != rows.total:
        raise ValueError(f"a weight {tuple(value.shape[1:])} was added to {len(x)} rows of models that have {rows.counts}")
    if rows.even:
        return (x.view(len(value), -1, *x.shape[1:]) + value).view(x.shape)
    return x + rows.spread(value[:, 0])


def _within(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Apply ``change``, an operation on one model's weight, to all models: ``change`` receives [S, ...] and the arguments."""
    return lambda weight, *arguments: _wrapped(change(_plain(weight), *arguments), _rows_of(weight))


def _flatten(value: Tensor, start: int = 0) -> Tensor:
    return value.flatten(start + 1)


def _view(value: Tensor, *shape: int) -> Tensor:
    return value.reshape(len(value), *shape)


def _cat(weights: Iterable[Stacked], dim: int = 0) -> Tensor:
    listed = list(weights)
    return _wrapped(torch.cat([_plain(weight) for weight in listed], dim + 1), _rows_of(listed[0]))


RULES: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.matmul: _matmul,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
    torch.Tensor.expand: _expand,
    torch.Tensor.add: _add,
    torch.Tensor.__add__: _add,
    torch.add: _add,
    torch.Tensor.flatten: _within(_flatten),
    torch.Tensor.view: _within(_view),
    torch.cat: _cat,
    torch.Tensor.shape.__get__: _shape,  # type: ignore[attr-defined]
}


def call_stacked(model: nn.Module, weights: Mapping[str, Tensor], rows: Rows, *inputs: Tensor, **settings: Any) -> Any:
    """``model(*inputs, **settings)``, computed for each row with its own model's weights; ``weights`` [S, ...] by name."""
    return torch.func.functional_call(model, stack_for(weights, rows), inputs, settings)
