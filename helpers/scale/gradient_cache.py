"""Gradient caching: the loss of a large batch, in the memory of a small one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient_cached_step(
    encode: Callable[..., tuple[Tensor, Tensor]], parts: Sequence, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Add the gradients of a whole batch to ``.grad``, holding the encoders' activations of one part at a time.

    ``encode(part)`` returns image and text features, ``[part, dim]`` each; ``loss`` takes the features of all parts.
    The loss is returned, detached. The encoders run forward twice. Batch norm would see one part only.
    Source: Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache).
    """
    states, features = [], []
    with torch.no_grad():  # 1. all features, without a graph
        for part in parts:
            gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
            states.append((torch.get_rng_state(), gpus))
            features.append(encode(part))
    images, texts = (torch.cat(side).requires_grad_() for side in zip(*features, strict=True))  # [batch, dim] each
    value = loss(images, texts)
    value.backward()  # 2. the gradient at the features, and at what else the loss uses, such as the temperature
    sizes = [len(part_images) for part_images, _ in features]
    part_gradients = zip(images.grad.split(sizes), texts.grad.split(sizes), strict=True)
    for part, (cpu, gpus), gradients in zip(parts, states, part_gradients, strict=True):
        torch.set_rng_state(cpu)  # the same dropout as in the first pass
        torch.cuda.set_rng_state_all(gpus)
        torch.autograd.backward(encode(part), gradients)  # 3. from the features into the encoders
    return value.detach()
