"""A large batch in the memory of a small one: its loss over all features at once, its encoders part by part."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


def gradient_cached_step(
    encode: Callable[[Part], tuple[Tensor, Tensor]],
    parts: Sequence[Part],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The backward pass of a batch whose graph would fit into memory only part by part.

    First all features are computed without a graph; then the loss and, once, its gradient with respect to the features
    and to whatever else it uses, such as a learned temperature; then each part again, with a graph, to which the
    gradient of its features is handed. Every part sees all pairs of the batch as negatives, which adding up the losses
    of the parts does not do. What is drawn at random, such as dropout, is drawn again as it was the first time.

    Gradients are added to ``.grad``, as by ``loss.backward()``, and are those of one graph over all parts in turn. The
    encoders run twice, so a step takes about a third longer. A layer that computes over the batch, as batch norm does,
    sees only its part.

    Args:
        encode: the image features and text features, ``[part, dim]`` each, of a part.
        parts: the batch in parts, each of any size.
        loss: of all image features and all text features, ``[batch, dim]`` each.

    Returns:
        The loss of the batch, a tensor without a graph.

    Raises:
        ValueError: if there are no parts.

    Source: Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache).
    """
    if len(parts) == 0:
        raise ValueError("there are no parts; give the batch in one or more")
    states, features = [], []
    with torch.no_grad():
        for part in parts:
            states.append(random_state())
            features.append(encode(part))
    images, texts = (torch.cat(side).requires_grad_() for side in zip(*features, strict=True))  # [batch, dim] each
    value = loss(images, texts)
    value.backward()
    image_gradients = images.grad.split([len(part_images) for part_images, _ in features])
    text_gradients = texts.grad.split([len(part_texts) for _, part_texts in features])
    for part, state, *gradients in zip(parts, states, image_gradients, text_gradients, strict=True):
        restore_random_state(state)
        torch.autograd.backward(encode(part), gradients)
    return value.detach()


def random_state() -> list[Tensor]:
    """The state of torch's generators: of the CPU, and of each GPU where one is in use."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]


def restore_random_state(state: list[Tensor]) -> None:
    """Set the generators back to what :func:`random_state` gave."""
    torch.set_rng_state(state[0])
    for device, of_device in enumerate(state[1:]):
        torch.cuda.set_rng_state(of_device, device)
