"""Live: the most bytes that are alive at once while something is computed, counted as tensors come and go.

On shapes alone (torch's meta device) as on real tensors. Attention counts as the kernel does that never holds all of its
probabilities, on every device: on the meta device torch would fall back to one that does.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def most(work: Callable[[], object], beside: Iterable[Tensor] = ()) -> int:
    """The most bytes that `work` holds at once, the tensors `beside` not counted, such as a network's weights."""
    live = Live(beside)
    with live, attending():
        held = work()
    del held
    return live.most


class Live(TorchDispatchMode):
    """Bytes of the tensors that have been made and are not gone; who asks shapes for a number is told 0: of a mask, not all."""

    def __init__(self, beside: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.most = 0
        storages = [tensor.untyped_storage() for tensor in beside]
        self.known = {id(storage): storage for storage in storages}   # held, so that no id comes again
        self.alive: set[int] = set()

    def __torch_dispatch__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 0
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())
        return out

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a tensor's bytes from now on until they are given back."""
        if id(storage) in self.known or id(storage) in self.alive:
            return
        self.alive.add(id(storage))
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.gone, id(storage), storage.nbytes())

    def gone(self, number: int, size: int) -> None:
        self.alive.discard(number)
        self.now -= size


@contextlib.contextmanager
def attending() -> Iterator[None]:
    """For a while attention on the meta device is what a CPU's kernel is; elsewhere it stays what it is."""
    plain = functional.scaled_dot_product_attention

    def attention(query: Tensor, *given: Any, **named: Any) -> Tensor:
        return (fused if query.is_meta else plain)(query, *given, **named)
    functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
          is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
    """(B, heads, L, D) of queries (B, heads, L, D), keys and values (B, heads or fewer, S, D)."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
