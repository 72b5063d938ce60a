"""Weights of linear layers, kept in the order in which a CPU's matrix units read them.

torch keeps a weight row by row, and oneDNN, which multiplies bfloat16 for it, moves it into blocks of its own at every
call. Where few rows are multiplied, one for each reply that is being written, that costs about as much as the product.
Here it is done once. The products are the same, bit for bit.

Two kinds of layers stay as they are. One with fewer outputs than inputs: packing gains nothing there, and for a single
row torch takes another kernel, which rounds one number in ten thousand the other way. And a last layer with a bias: it
is given the last position of each row, with a stride, and there torch multiplies, rounds and then adds.

The two operators are those of torch's own compiler and are not documented. So the whole model is tried with and without
them: where one is missing, fails or changes a bit, all layers stay as they were.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_ROWS = 512
"""Rows of a typical product, which the order of the blocks is chosen for; it holds for any number."""
_TRIED = (1, 20)
"""Tokens that are read to compare: kernels differ by the number of rows."""


def pack(model: Any, kept: Any = None) -> int:
    """Pack the linear layers of a model, if that can be done and changes nothing.

    A packed layer's ``weight`` is empty, so that there are not two copies; that of ``kept``, and of layers that share
    it with another, such as the embedding of words, stays, and then there are two.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        kept: a layer whose weight somebody reads.

    Returns:
        How many layers are packed; 0: the model is as it was. Where it could not stay packed, and there is no memory to
        unpack a layer, that layer stays packed: it works.
    """
    import torch

    ops = torch.ops.mkldnn
    try:
        able = torch.backends.mkldnn.is_available() and ops._is_mkldnn_bf16_supported()
        able = able and all(hasattr(ops, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    except (AttributeError, RuntimeError):  # a torch without them
        able = False
    used: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            used[id(weight)] = used.get(id(weight), 0) + 1
    layers = [
        (module, module is kept or used[id(module.weight)] > 1)
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and module.weight.dtype == torch.bfloat16
        and module.weight.device.type == "cpu"
        and module.in_features <= module.out_features
        and module.weight.numel()
        and not (module is model.get_output_embeddings() and module.bias is not None)
    ]
    if not able or not layers:
        return 0
    undo: list[Callable[[], bool]] = []
    with torch.inference_mode():
        try:
            before = _read(model, torch)
            for module, shared in layers:
                undo.append(_packed(module, shared, torch))
            same = all(torch.equal(one, other) for one, other in zip(before, _read(model, torch), strict=True))
        except Exception:  # a foreign model's own way to say that it wants its weights, or a kernel's
            same = False
    if same:
        return len(layers)
    return sum([not restore() for restore in reversed(undo)])


def _packed(module: Any, shared: bool, torch: Any) -> Callable[[], bool]:
    """Pack one layer; what undoes it, and says whether it could."""
    ops, weight, bias = torch.ops.mkldnn, module.weight, module.bias
    blocks = [ops._reorder_linear_weight(weight.data, _ROWS)]
    module.forward = lambda rows: ops._linear_pointwise(rows, blocks[0], bias, "none", [], "")
    if not shared:
        module.weight = torch.nn.Parameter(weight.data.new_empty((0, weight.shape[1])), requires_grad=False)

    def restore() -> bool:
        if not shared:
            try:
                rows = blocks[0].to_dense()
            except (RuntimeError, MemoryError):  # no room for it
                return False
            module.weight = torch.nn.Parameter(rows, requires_grad=False)
        del module.forward
        blocks.clear()  # at once: the next layer needs the room
        return True

    return restore


def _read(model: Any, torch: Any) -> list[Any]:
    """Logits of a few tokens, of several lengths; and of the last position of two rows, as in writing."""
    words = model.get_input_embeddings().weight.shape[0]
    given = [torch.arange(many)[None] for many in _TRIED]
    out = [model(input_ids=(ids * 97 + 13) % words, use_cache=False).logits.clone() for ids in given]
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        ids = (torch.arange(10).reshape(2, 5) * 89 + 7) % words
        out.append(model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.clone())
    return out
