"""A check for each exercise: it compares an answer with an independent reference, and names the mistake.

Every check prints one line when the answer is right, and raises ``AssertionError`` in words when it is wrong.
"""

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping

import torch
from scipy import stats
from torch import Tensor

CASES = 20


def expect(right: bool, message: str) -> None:
    """Raise ``AssertionError`` with the message unless ``right``; unlike ``assert``, under ``python -O`` too."""
    if not right:
        raise AssertionError(message)


def same(answer: object, reference: Tensor) -> bool:
    """Whether an answer is a tensor of the reference's shape with the reference's numbers."""
    return (
        isinstance(answer, Tensor)
        and answer.shape == reference.shape
        and torch.allclose(answer.double(), reference.double(), atol=1e-5, rtol=1e-4)
    )


def attempt(answer: Callable[..., object], *arguments: object) -> object:
    """What an answer returns; ``AssertionError`` in words if it raises, as the stub does."""
    name = getattr(answer, "__name__", "the answer")
    try:
        return answer(*arguments)
    except NotImplementedError:
        raise AssertionError(f"{name} is not written yet: put your code in place of the stub") from None
    except Exception as error:
        raise AssertionError(f"{name} stopped with {type(error).__name__}: {error}") from error


def agree(name: str, result: object, reference: Tensor, mistakes: Mapping[str, Tensor]) -> None:
    """Raise ``AssertionError`` unless a result is the reference, naming the mistake that gives this result.

    Args:
        name: of the function that was asked for.
        result: what the answer returned.
        reference: what is right.
        mistakes: what a typical mistake gives, under the sentence that names it.
    """
    hint = "; is a return missing?" if result is None else ""
    expect(isinstance(result, Tensor), f"{name} must return a tensor, not {type(result).__name__}{hint}")
    if same(result, reference):
        return
    for sentence, wrong in mistakes.items():
        expect(not same(result, wrong), sentence)
    expect(
        result.shape == reference.shape,
        f"{name} returned the shape {list(result.shape)}; it should be {list(reference.shape)}",
    )
    place = tuple((~torch.isclose(result.double(), reference.double(), atol=1e-5, rtol=1e-4)).nonzero()[0].tolist())
    where = f"entry {list(place)}" if place else "the number"
    raise AssertionError(f"{name}: {where} is {result[place]:.4g}, and should be {reference[place]:.4g}")


def passed(name: str) -> None:
    print(f"Right: {name} agrees with the reference on {CASES} random cases.")


def check_pad(answer: Callable[[list[list[int]]], tuple[Tensor, Tensor]]) -> None:
    """``answer(token_lists)``: lists of ids, none empty, to ``token_ids`` (int64) and ``padding`` (bool), both
    ``[batch, longest]``, zeros after the ids, True where no word is. Id 0 may be a word."""
    generator = random.Random(0)
    for _ in range(CASES):
        lengths = generator.sample(range(1, 9), 4)
        token_lists = [[generator.randrange(5) for _ in range(length)] for length in lengths]
        token_lists[lengths.index(max(lengths))][0] = 0
        token_ids = torch.zeros(4, max(lengths), dtype=torch.long)
        at_the_end = torch.zeros_like(token_ids)
        padding = torch.ones_like(token_ids, dtype=torch.bool)
        for row, ids in enumerate(token_lists):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            at_the_end[row, -len(ids) :] = torch.tensor(ids)
            padding[row, : len(ids)] = False
        result = attempt(answer, [list(ids) for ids in token_lists])
        two = isinstance(result, tuple | list) and len(result) == 2 and all(isinstance(part, Tensor) for part in result)
        expect(two, "pad must return two tensors, token_ids and padding; is a return missing?")
        expect(result[0].dtype == torch.long, f"token_ids must be int64, as an embedding asks, not {result[0].dtype}")
        expect(result[1].dtype == torch.bool, f"padding must be bool, not {result[1].dtype}")
        mistakes = {
            "token_ids is cut to the shortest text, so words are lost; fill the others up to the longest": (
                token_ids[:, : min(lengths)]
            ),
            "the zeros stand before the ids; put them after, so that every text begins at place 0": at_the_end,
        }
        agree("pad, token_ids", result[0], token_ids, mistakes)
        mistakes = {
            "padding is the wrong way round: it should be True where there is no word": ~padding,
            "padding comes from the zeros in token_ids, but here id 0 can be a word; take it from the lengths": (
                token_ids == 0
            ),
        }
        agree("pad, padding", result[1], padding, mistakes)
    passed("pad")


def check_flip_caption(answer: Callable[[str], str]) -> None:
    """``answer(caption)``: the words left and right exchanged, everything else as it was."""
    generator = random.Random(0)
    other = {"left": "right", "right": "left"}
    for _ in range(CASES):
        parts = generator.sample(["a leftover cake", "bright lights", "an upright star", "a cleft rock"], 2)
        lefts = ["a star on the left", "a cross to the left of a square", "a circle in the upper left"]
        rights = ["at the right a dot", "a star right of a cross", "a ring at the bottom right"]
        parts += [*generator.sample(lefts, 2), *generator.sample(rights, 2)]
        generator.shuffle(parts)
        caption = ", ".join(parts) + "."
        pieces = re.findall("[a-z]+|[^a-z]+", caption)
        right = "".join(other.get(piece, piece) for piece in pieces)
        inside = "".join(other.get(piece, piece) for piece in re.split("(left|right)", caption))
        undone = "the second replacement undoes the first, so all sides became one; exchange both in one pass"
        mistakes = {
            caption: "nothing changed; 'left' should become 'right' and 'right' 'left'",
            caption.replace("left", "right").replace("right", "left"): undone,
            caption.replace("right", "left").replace("left", "right"): undone,
            re.sub(r"\bright\b", "left", caption): undone,
            re.sub(r"\bleft\b", "right", caption): undone,
            re.sub(r"\b(left|right)\b", lambda side: other[side[0]], caption, count=1): (
                "only the first side was exchanged; a caption can have several"
            ),
            inside: "a longer word was changed too, such as 'leftover' or 'bright'; only whole words are sides",
            " ".join(other.get(word, word) for word in caption.split()): (
                "a side with a comma or full stop after it was not exchanged: 'left,' is the word 'left' too"
            ),
        }
        result = attempt(answer, caption)
        expect(isinstance(result, str), f"flip_caption must return a str, not {type(result).__name__}")
        if result != right:
            raise AssertionError(mistakes.get(result, f"of {caption!r} you made {result!r}; it should be {right!r}"))
    passed("flip_caption")


def check_collate(answer: Callable[[list[dict]], dict]) -> None:
    """``answer(items)``: items ``{"image", "texts", "image_id"}`` with uneven numbers of texts to ``images``
    ``[B, 3, H, W]``, ``texts`` (one list of all ``C``, item by item), ``image_of_text`` (int64 ``[C]``, rows of B)."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(CASES):
        counts = (1 + torch.randperm(4, generator=generator)[:3]).tolist()
        images = torch.randn(3, 3, 4, 5, generator=generator)
        ids = (10 + torch.randperm(50, generator=generator)[:3]).tolist()
        # Captions of different images can be the same words.
        texts = [[f"caption {n}" for n in torch.randperm(6, generator=generator)[:count].tolist()] for count in counts]
        items = [
            {"image": image, "texts": list(of_image), "image_id": image_id}
            for image, of_image, image_id in zip(images, texts, ids, strict=True)
        ]
        rows = [row for row, count in enumerate(counts) for _ in range(count)]
        turned = [(row, place) for place in range(max(counts)) for row in range(3) if place < counts[row]]
        result = attempt(answer, items)
        named = isinstance(result, dict) and result.keys() >= {"images", "texts", "image_of_text"}
        expect(named, "collate_all must return a dictionary with images, texts and image_of_text")
        wrong = "images are stacked along the wrong dimension; the batch comes first, dim=0"
        agree("collate_all, images", result["images"], images, {wrong: images.transpose(0, 1)})
        expect(isinstance(result["texts"], list | tuple), "texts must be a list of all captions")
        expect(
            all(isinstance(text, str) for text in result["texts"]),
            "texts is a list of lists; make one flat list of all captions",
        )
        flat = [text for of_image in texts for text in of_image]
        if list(result["texts"]) != flat:
            mistakes = {
                tuple(of_image[0] for of_image in texts): "texts has only the first caption of each image; keep all",
                tuple(texts[row][place] for row, place in turned): (
                    "texts is inside out: first captions first, then second ones; keep those of an image together"
                ),
            }
            other = f"texts is {list(result['texts'])}; it should be {flat}"
            raise AssertionError(mistakes.get(tuple(result["texts"]), other))
        mistakes = {
            "image_of_text holds image_ids; it should hold rows of this batch, from 0": torch.tensor(ids)[rows],
            "image_of_text is in another order than texts: all captions of image 0 come first": (
                torch.tensor([row for row, _ in turned])
            ),
            "image_of_text counts captions; it should give the same row to all captions of an image": (
                torch.arange(len(rows))
            ),
        }
        agree("collate_all, image_of_text", result["image_of_text"], torch.tensor(rows), mistakes)
        expect(result["image_of_text"].dtype == torch.long, "image_of_text must be int64, since it is an index")
    passed("collate_all")


def check_l2_normalize(answer: Callable[[Tensor], Tensor]) -> None:
    """``answer(features)``: ``[..., dim]`` to the same shape, each vector of length 1, zeros left as zeros."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        batch, words, dim = torch.randint(2, 7, (3,), generator=generator).tolist()
        features = 3 * torch.randn((batch, dim) if case % 2 == 0 else (batch, words, dim), generator=generator)
        squares = features.square().sum(-1, keepdim=True)
        mistakes = {
            "this divides by the squared length; take the square root of the sum of squares": features / squares,
            "this divides by the sum of absolute values (L1); L2 is the root of the sum of squares": (
                features / features.abs().sum(-1, keepdim=True)
            ),
            "this gives length 1 to the columns (dim 0); each vector lies along the last dimension, dim=-1": (
                features / features.square().sum(0, keepdim=True).sqrt()
            ),
            "this divides everything by one length; each vector has its own: sum over dim=-1 with keepdim=True": (
                features / features.square().sum().sqrt()
            ),
            "this sums over dim 1, which is right for [batch, dim] only; the last dimension is dim=-1": (
                features / features.square().sum(1, keepdim=True).sqrt()
            ),
        }
        agree("l2_normalize", attempt(answer, features.clone()), features / squares.sqrt(), mistakes)
    of_zeros = attempt(answer, torch.zeros(2, 3))
    expect(
        isinstance(of_zeros, Tensor) and not of_zeros.isnan().any(),
        "a vector of zeros became NaN, since 0 / 0 is undefined; let the length be at least a tiny number, as 1e-12",
    )
    agree("l2_normalize", of_zeros, torch.zeros(2, 3), {})
    passed("l2_normalize")


def surprises(logits: Tensor, dim: int) -> Tensor:
    """Minus the log probability of each matched pair, ``[batch]``, the softmax taken along ``dim``."""
    return logits.logsumexp(dim) - logits.diagonal()  # [batch]


def check_text_to_image_loss(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """``answer(image_features, text_features, temperature)``: the mean loss of each text finding its image."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(CASES):
        batch, dim = torch.randint(3, 9, (2,), generator=generator).tolist()
        temperature = float(0.05 + 0.4 * torch.rand((), generator=generator))
        images = 2 * torch.randn(batch, dim, generator=generator)
        texts = images + 2 * torch.randn(batch, dim, generator=generator)
        cosines = (images / images.norm(dim=1, keepdim=True)) @ (texts / texts.norm(dim=1, keepdim=True)).T
        reference = surprises(cosines / temperature, 0).mean()
        other_way = surprises(cosines / temperature, 1).mean()
        mistakes = {
            "this is image to text, the other direction; each text should be compared with all images": other_way,
            "this is the mean of both directions; only text to image is asked for": (reference + other_way) / 2,
            "the features are not normalised; without it their lengths count": (
                surprises(images @ texts.T / temperature, 0).mean()
            ),
            "this multiplies by the temperature; divide by it": surprises(cosines * temperature, 0).mean(),
            "the temperature is not used; divide the similarities by it": surprises(cosines, 0).mean(),
            "this is the sum over the batch; take the mean": reference * batch,
            "the minus sign is missing; the loss is minus the log of a probability": -reference,
            "this is one loss for each text; take their mean": surprises(cosines / temperature, 0),
        }
        agree("text_to_image_loss", attempt(answer, images.clone(), texts.clone(), temperature), reference, mistakes)
    passed("text_to_image_loss")


def check_mask_same_image(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``answer(logits, image_ids)``: the logits with -inf where two different pairs of the batch share an image."""
    generator = torch.Generator().manual_seed(0)
    hide = float("-inf")
    for _ in range(CASES):
        batch = int(torch.randint(5, 10, (), generator=generator))
        image_ids = torch.randint(0, 4, (batch,), generator=generator) * 10
        logits = 5 * torch.randn(batch, batch, generator=generator)
        same_image = image_ids[:, None] == image_ids[None, :]
        hidden = same_image & ~torch.eye(batch, dtype=torch.bool)
        mistakes = {
            "the diagonal is hidden too, and with it every matched pair; keep entry [i, i]": (
                logits.masked_fill(same_image, hide)
            ),
            "this hides the entries of different images; hide those of the same image": (
                logits.masked_fill(~same_image, hide)
            ),
            "a hidden logit of 0 still adds e**0 = 1 to the sum of its row; put -inf": logits.masked_fill(hidden, 0.0),
            "this puts a large negative number; put -inf itself, float('-inf')": logits.masked_fill(hidden, -1e9),
            "this hides entries above the diagonal only; [i, j] and [j, i] are both of the same image": (
                logits.masked_fill(hidden.triu(), hide)
            ),
            "this hides entries below the diagonal only; [i, j] and [j, i] are both of the same image": (
                logits.masked_fill(hidden.tril(), hide)
            ),
        }
        given = logits.clone()
        result = attempt(answer, given, image_ids.clone())
        agree("mask_same_image", result, logits.masked_fill(hidden, hide), mistakes)
        expect(torch.equal(given, logits), "this changes the logits it was given; return a new tensor (masked_fill)")
    passed("mask_same_image")


def check_multi_positive_loss(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``answer(logits, image_ids, text_image_ids)``: ``[images, texts]`` to the mean loss of both directions, where the
    target of each image is uniform over its texts, and that of each text uniform over its images."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        if case % 2 == 0:  # some images, each with one to three texts, in any order
            counts = 1 + torch.randperm(3, generator=generator)
            image_ids = 10 * torch.randperm(9, generator=generator)[:3]
            text_image_ids = image_ids.repeat_interleave(counts)[torch.randperm(6, generator=generator)]
        else:  # pairs, some of them of the same image
            image_ids = text_image_ids = 10 * torch.randint(0, 4, (7,), generator=generator)
        logits = 3 * torch.randn(len(image_ids), len(text_image_ids), generator=generator)
        right = (image_ids[:, None] == text_image_ids).float()
        of_image, of_text = right.sum(1, keepdim=True), right.sum(0, keepdim=True)
        to_texts, to_images = logits.log_softmax(1), logits.log_softmax(0)
        image_losses = logits.logsumexp(1) - (logits * right / of_image).sum(1)
        text_losses = logits.logsumexp(0) - (logits * right / of_text).sum(0)
        reference = (image_losses.mean() + text_losses.mean()) / 2
        mistakes = {
            "this is image to text only; take the mean with text to image": image_losses.mean(),
            "this is text to image only; take the mean with image to text": text_losses.mean(),
            "this is the sum of both directions; take their mean": 2 * reference,
            "the minus sign is missing; the loss is minus the log of a probability": -reference,
            "this is the sum over images and over texts; take the mean of each": (
                (image_losses.sum() + text_losses.sum()) / 2
            ),
            "the targets sum to the number of right answers; divide by it, so that each question's target sums to 1": (
                -((right * to_texts).sum(1).mean() + (right * to_images).sum(0).mean()) / 2
            ),
            "the targets of text to image are those of image to text transposed, and do not sum to 1; "
            "divide by the number of images of each text": (
                (image_losses.mean() - (right / of_image * to_images).sum(0).mean()) / 2
            ),
            "this is the log of a sum of probabilities, which any one right answer can satisfy; "
            "the logs of the probabilities are to be summed, each times its target": (
                -((right * to_texts.exp()).sum(1).log().mean() + (right * to_images.exp()).sum(0).log().mean()) / 2
            ),
            "each softmax goes along the wrong axis; image to text is over the texts, dim=1": (
                -((right / of_image * to_images).sum(1).mean() + (right / of_text * to_texts).sum(0).mean()) / 2
            ),
        }
        if len(image_ids) == len(text_image_ids):
            mistakes["only the diagonal counts as right; every text of the same image does"] = (
                -(to_texts.diagonal().mean() + to_images.diagonal().mean()) / 2
            )
        result = attempt(answer, logits.clone(), image_ids.clone(), text_image_ids.clone())
        agree("multi_positive_loss", result, reference, mistakes)
    passed("multi_positive_loss")


def check_effective_negatives(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """``answer(image_features, text_features, temperature)``: the mean over images of exp(entropy of their softmax)."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        batch, dim = torch.randint(3, 9, (2,), generator=generator).tolist()
        temperature = 0.005 if case == CASES - 1 else float(0.05 + 0.4 * torch.rand((), generator=generator))
        images = 2 * torch.randn(batch, dim, generator=generator)
        texts = images + 2 * torch.randn(batch, dim, generator=generator)
        cosines = (images / images.norm(dim=1, keepdim=True)) @ (texts / texts.norm(dim=1, keepdim=True)).T
        entropies = row_entropies(cosines / temperature)
        own = torch.eye(batch, dtype=torch.bool)
        mistakes = {
            "this is the entropy; the number of texts it amounts to is its exponential": entropies.mean(),
            "this is exp of the mean entropy; take exp of each row's entropy first, then the mean": (
                entropies.mean().exp()
            ),
            "this is one number for each image; take their mean": entropies.exp(),
            "this is the softmax over columns; each image should be compared with all texts": (
                row_entropies(cosines.T / temperature).exp().mean()
            ),
            "the features are not normalised; without it their lengths count": (
                row_entropies(images @ texts.T / temperature).exp().mean()
            ),
            "this multiplies by the temperature; divide by it": row_entropies(cosines * temperature).exp().mean(),
            "the temperature is not used; divide the similarities by it": row_entropies(cosines).exp().mean(),
            "the minus sign of the entropy is missing": (-entropies).exp().mean(),
            "this leaves the image's own text out; here it is counted with the others": (
                row_entropies((cosines / temperature).masked_fill(own, float("-inf"))).exp().mean()
            ),
            "log2 and exp do not belong together; use the natural logarithm": (entropies / math.log(2)).exp().mean(),
        }
        result = attempt(answer, images.clone(), texts.clone(), temperature)
        expect(
            not (isinstance(result, Tensor) and result.isnan().any()),
            f"NaN at temperature {temperature:.3f}: a probability was rounded to 0, and 0 * ln 0 is undefined; "
            "use torch.special.entr, or take the logarithm with log_softmax",
        )
        agree("effective_negatives", result, entropies.exp().mean(), mistakes)
    passed("effective_negatives")


def row_entropies(logits: Tensor) -> Tensor:
    """Entropy of the softmax of each row, in nats: ``[rows, columns]`` to ``[rows]``."""
    probabilities = (logits.double() - logits.double().logsumexp(1, keepdim=True)).exp()
    return torch.special.entr(probabilities).sum(1)


def check_gradient_shares(answer: Callable[[Tensor, float], Tensor]) -> None:
    """``answer(similarity, temperature)``: ``[N, N]``; row i holds each negative's share of image i's repulsion."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        batch = int(torch.randint(3, 9, (), generator=generator))
        temperature = float(0.05 + 0.4 * torch.rand((), generator=generator))
        similarity = torch.rand(batch, batch, generator=generator) - 0.5
        own = torch.eye(batch, dtype=torch.bool)
        if case == CASES - 1:
            temperature, similarity = 0.005, similarity / 10 + own  # the own texts have all of the probability
        logits = similarity / temperature
        probabilities = logits.softmax(1)
        mistakes = {
            "the matched text is still in the softmax; only the negatives are pushed away": probabilities,
            "the diagonal is 0, but the rows do not sum to 1; a share is of the repulsion, so leave the matched text "
            "out of the sum below the line too": probabilities.masked_fill(own, 0.0),
            "a logit of 0 still has a weight of e**0 = 1; give the matched text -inf": (
                logits.masked_fill(own, 0.0).softmax(1)
            ),
            "this is the gradient itself; a share has no 1 / temperature and no matched text": (
                (probabilities - own.float()) / temperature
            ),
            "this is the softmax over columns; each image should be compared with all texts": (
                logits.masked_fill(own, float("-inf")).softmax(0)
            ),
            "the temperature is not used; divide the similarities by it": (
                similarity.masked_fill(own, float("-inf")).softmax(1)
            ),
            "this multiplies by the temperature; divide by it": (
                (similarity * temperature).masked_fill(own, float("-inf")).softmax(1)
            ),
            "every negative has the same share; near ones should have more": (~own).float() / (batch - 1),
        }
        given = similarity.clone()
        result = attempt(answer, given, temperature)
        expect(torch.equal(given, similarity), "this changes the similarities it was given; return a new tensor")
        expect(
            not (isinstance(result, Tensor) and not result.isfinite().all()),
            "NaN or infinity where the matched text has all of the probability: nothing is left to divide by; "
            "give it the logit -inf before the softmax",
        )
        agree("gradient_shares", result, logits.masked_fill(own, float("-inf")).softmax(1), mistakes)
    passed("gradient_shares")


def check_cosine_schedule(answer: Callable[[float, float, float], float]) -> None:
    """``answer(progress, start, end)``: half a cosine from start to end; ValueError for a progress outside 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        progress, start, end = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        progress = float(case - CASES + 2) if case >= CASES - 2 else progress  # the two ends come last
        angle = math.pi * progress
        mistakes = {
            "this goes from end to start; at progress 0 the temperature is start": start
            + (end - start) * (1 + math.cos(angle)) / 2,
            "this is a whole period, which comes back to start; a decay is half of one": end
            + (start - end) * (1 + math.cos(2 * angle)) / 2,
            "this is a straight line; the cosine is slow at both ends": start + (end - start) * progress,
            "pi is missing: progress 1 is an angle of pi": end + (start - end) * (1 + math.cos(progress)) / 2,
            "a cosine runs from 1 to -1; (1 + cosine) / 2 runs from 1 to 0": end + (start - end) * math.cos(angle),
            "this is a quarter of a cosine, slow at its start alone; half of one is slow at both ends": end
            + (start - end) * math.cos(angle / 2),
            "the start is counted from 0; the cosine scales the way from end to start, start - end": end
            + start * (1 + math.cos(angle)) / 2,
        }
        result = attempt(answer, progress, start, end)
        result = torch.tensor(result, dtype=torch.float64) if isinstance(result, int | float) else result
        reference = torch.tensor(start * math.cos(angle / 2) ** 2 + end * math.sin(angle / 2) ** 2)
        agree("cosine_schedule", result, reference, {text: torch.tensor(wrong) for text, wrong in mistakes.items()})
    for progress in (-0.1, 1.5):
        try:
            answer(progress, 0.2, 0.05)
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(
                f"a progress of {progress} raises {type(error).__name__}; let it be ValueError"
            ) from error
        raise AssertionError(f"a progress of {progress} lies outside 0 to 1; raise a ValueError that says so")
    passed("cosine_schedule")


def check_anchor_loss(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """``answer(image_features, text_features, image_temperatures, text_temperatures)``: the mean of both directions,
    where image i compares all texts at its own temperature, and text j all images at its own."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        batch, dim = torch.randint(3, 9, (2,), generator=generator).tolist()
        image_temperatures, text_temperatures = 0.05 + 0.4 * torch.rand(2, batch, generator=generator)
        images = 2 * torch.randn(batch, dim, generator=generator)
        texts = images + 2 * torch.randn(batch, dim, generator=generator)
        if case == CASES - 1:  # some temperatures so small that an exponential of a logit would overflow
            image_temperatures, text_temperatures = image_temperatures / 100, text_temperatures / 100
        dots = images @ texts.T
        cosines = (images / images.norm(dim=1, keepdim=True)) @ (texts / texts.norm(dim=1, keepdim=True)).T
        rows, columns = image_temperatures[:, None], text_temperatures[None, :]
        to_texts, to_images = surprises(cosines / rows, 1), surprises(cosines / columns, 0)  # [batch] each
        reference = (to_texts.mean() + to_images.mean()) / 2
        by_candidate = surprises(cosines / columns, 1).mean(), surprises(cosines / rows, 0).mean()
        by_place = surprises(cosines / image_temperatures, 1).mean(), surprises(cosines.T / text_temperatures, 1).mean()
        mistakes = {
            "the temperatures divide the candidates, not the anchors: [N] is taken as a row, [1, N]; "
            "write image_temperatures[:, None]": (by_place[0] + by_place[1]) / 2,
            "image to text is divided by the temperatures of its columns; an image's own temperature divides its row, "
            "image_temperatures[:, None]": (by_place[0] + to_images.mean()) / 2,
            "text to image is divided by the temperatures of its candidates; a text's own temperature divides all "
            "that the text is compared with": (to_texts.mean() + by_place[1]) / 2,
            "the two sets of temperatures are exchanged: images have image_temperatures": (
                (surprises(cosines / text_temperatures[:, None], 1).mean() + surprises(cosines / rows.T, 0).mean()) / 2
            ),
            "each direction is divided by the temperatures of the other side, its candidates": sum(by_candidate) / 2,
            "both directions are divided by the temperatures of the images; texts have their own": (
                (to_texts.mean() + by_candidate[1]) / 2
            ),
            "both directions are divided by the temperatures of the texts; images have their own": (
                (by_candidate[0] + to_images.mean()) / 2
            ),
            "each entry is divided by both temperatures; a direction has that of its anchor alone": (
                (surprises(cosines / (rows * columns), 1).mean() + surprises(cosines / (rows * columns), 0).mean()) / 2
            ),
            "this is image to text only; take the mean with text to image": to_texts.mean(),
            "this is text to image only; take the mean with image to text": to_images.mean(),
            "this is the sum of both directions; take their mean": 2 * reference,
            "this is one loss for each pair; take their mean": (to_texts + to_images) / 2,
            "the features are not normalised; without it their lengths count": (
                (surprises(dots / rows, 1).mean() + surprises(dots / columns, 0).mean()) / 2
            ),
            "this multiplies by the temperatures; divide by them": (
                (surprises(cosines * rows, 1).mean() + surprises(cosines * columns, 0).mean()) / 2
            ),
            "this uses one temperature for all, the mean; each anchor has its own": (
                (
                    surprises(cosines / image_temperatures.mean(), 1).mean()
                    + surprises(cosines / text_temperatures.mean(), 0).mean()
                )
                / 2
            ),
            "the temperatures are not used; divide each anchor's similarities by its own": (
                (surprises(cosines, 1).mean() + surprises(cosines, 0).mean()) / 2
            ),
        }
        given = [side.clone() for side in (images, texts, image_temperatures, text_temperatures)]
        result = attempt(answer, *given)
        expect(
            not (isinstance(result, Tensor) and not result.isfinite().all()),
            "NaN or infinity at a small temperature: an exponential was too large; use cross_entropy or log_softmax",
        )
        agree("anchor_loss", result, reference, mistakes)
    passed("anchor_loss")


def owners(images: int, captions: int, generator: torch.Generator) -> Tensor:
    """The row of each caption's image, ``[captions]``, in random order; every image has two captions or more."""
    rows = torch.arange(images).repeat(2)
    more = torch.randint(images, (captions - 2 * images,), generator=generator)
    return torch.cat([rows, more])[torch.randperm(captions, generator=generator)]


def check_pool_regions(answer: Callable[[Tensor, int], Tensor]) -> None:
    """``answer(region_map, grid)``: ``[batch, channels, 4, 4]`` to the mean of each of ``grid * grid`` blocks,
    channel by channel in ``[batch, channels * grid * grid]``; grid is 1, 2 or 4."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        grid = (2, 1, 4)[case % 3]
        batch, channels = torch.randint(2, 5, (2,), generator=generator).tolist()
        regions = torch.randn(batch, channels, 4, 4, generator=generator)
        side = 4 // grid
        cells = [(r, c) for r in range(grid) for c in range(grid)]
        blocks = [regions[:, :, r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in cells]
        means = torch.stack([block.mean((2, 3)) for block in blocks], 2)  # [batch, channels, grid * grid]
        # What comes of every grid-th row and column, where neighbours were meant.
        strided = torch.stack([regions[:, :, r::grid, c::grid].mean((2, 3)) for r, c in cells], 2)
        mistakes = {
            "the result is not flattened; it should be [batch, channels * grid * grid]": means.unflatten(
                2, (grid, grid)
            ),
            "the channels of a region stand together; put all regions of channel 0 first, then those of channel 1": (
                means.transpose(1, 2).flatten(1)
            ),
            "this takes the largest of each block; take the mean": (
                torch.stack([block.amax((2, 3)) for block in blocks], 2).flatten(1)
            ),
            "this takes the sum of each block; take the mean": means.flatten(1) * side * side,
            "this keeps one region of each block; take the mean of all in it": (
                torch.stack([block[:, :, 0, 0] for block in blocks], 2).flatten(1)
            ),
            "the regions that are averaged are not neighbours; split an axis of 4 into grid groups of 4 // grid, in "
            "this order": strided.flatten(1),
            "the channels are averaged too; each channel keeps its own means": means.mean(1),
            "the grid is transposed: rows come before columns": (
                means.unflatten(2, (grid, grid)).transpose(2, 3).flatten(1)
            ),
            "the whole map is averaged, whatever the grid": regions.mean((2, 3)),
            "nothing is averaged; each block becomes one number a channel": regions.flatten(1),
        }
        agree("pool_regions", attempt(answer, regions.clone(), grid), means.flatten(1), mistakes)
    passed("pool_regions")


def check_token_wise_similarity(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``answer(regions, words, padding)``: regions ``[images, regions, dim]``, words ``[texts, length, dim]`` and
    padding, bool ``[texts, length]``, to ``[images, texts]``: the mean over the words of a text, padding left out, of
    the cosine of each with its best region of the image."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        images, texts = torch.randint(2, 6, (2,), generator=generator).tolist()
        length = int(torch.randint(4, 8, (), generator=generator))
        regions = 3 * torch.randn(images, 9, 5, generator=generator)
        words = 2 * torch.randn(texts, length, 5, generator=generator)  # also where padding is: it must not count
        counts = torch.randint(1, length, (texts,), generator=generator)
        counts[0] = length - 2
        counts[1] = length if case else length - 1  # at first each text is padded, so a mask turned round is no 0 / 0
        padding = torch.arange(length) >= counts[:, None]  # [texts, length]
        dots = torch.stack([torch.stack([x @ y.T for y in words]) for x in regions])  # [image, text, region, word]
        cosines = dots / regions.norm(dim=2)[:, None, :, None] / words.norm(dim=2)[None, :, None]

        def over_words(values: Tensor, counts: Tensor = counts) -> Tensor:
            """``[image, text, word]`` to the mean over the first words of each text, as many as it has."""
            means = [values[:, text, :count].mean(1) for text, count in enumerate(counts.tolist())]
            return torch.stack(means, 1)  # [image, text]

        best_region = cosines.amax(2)  # [image, text, word]
        reference = over_words(best_region)
        best_word = [cosines[:, text, :, :count].amax(2) for text, count in enumerate(counts.tolist())]
        mistakes = {
            "padding is not masked: what stands at padded places is no word and must not count": best_region.mean(2),
            "padding is masked, but the mean still divides by the padded length; divide by the number of words": (
                reference * counts / length
            ),
            "padded places were set to minus infinity and are still in the mean; give them 0 once the best is chosen": (
                reference.masked_fill(padding.any(1), float("-inf"))
            ),
            "the mask is the wrong way round: padding is True where no word is": (
                (best_region * padding).sum(2) / padding.sum(1)
            ),
            "this is the sum over words; take the mean, or long texts win": reference * counts,
            "this is each region's best word; each word seeks its best region, so the maximum is over regions": (
                torch.stack([best.mean(1) for best in best_word], 1)
            ),
            "this is each region's best word, with padding as a word; the maximum is over regions": (
                cosines.amax(3).mean(2)
            ),
            "regions and words are not normalised; s is their cosine": over_words(dots.amax(2)),
            "the regions are not normalised": over_words((dots / words.norm(dim=2)[None, :, None]).amax(2)),
            "the words are not normalised": over_words((dots / regions.norm(dim=2)[:, None, :, None]).amax(2)),
            "this is the mean over all regions; each word looks at its best one": over_words(cosines.mean(2)),
            "this is the one best word of each text; take the mean of all its words": (
                best_region.masked_fill(padding, -2.0).amax(2)
            ),
            "the result is [texts, images]; images are rows": reference.T,
        }
        result = attempt(answer, regions.clone(), words.clone(), padding.clone())
        agree("token_wise_similarity", result, reference, mistakes)
    passed("token_wise_similarity")


def check_nested_prefix_loss(answer: Callable[[Tensor, Tensor, list[int], float], Tensor]) -> None:
    """``answer(image_features, text_features, prefixes, temperature)``: the mean over prefixes k of the symmetric
    contrastive loss of the first k components, each prefix L2-normalised."""
    generator = torch.Generator().manual_seed(0)

    def symmetric(x: Tensor, y: Tensor, temperature: float, normalize: bool = True) -> Tensor:
        if normalize:
            x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        logits = x @ y.T / temperature  # [batch, batch]
        return (surprises(logits, 0).mean() + surprises(logits, 1).mean()) / 2

    for _ in range(CASES):
        batch = int(torch.randint(8, 13, (), generator=generator))  # more pairs than the longest prefix has components
        temperature = float(0.1 + 0.4 * torch.rand((), generator=generator))
        images = torch.randn(batch, 16, generator=generator)
        texts = images + torch.randn(batch, 16, generator=generator)
        prefixes = sorted((2 + torch.randperm(6, generator=generator)[:3]).tolist())
        pairs = [(images[:, :k], texts[:, :k]) for k in prefixes]
        terms = torch.stack([symmetric(x, y, temperature) for x, y in pairs])
        unit_images, unit_texts = images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True)
        one_way = [surprises((x @ y.T) / x.norm(dim=1)[:, None] / y.norm(dim=1) / temperature, 1) for x, y in pairs]
        cut_late = [symmetric(unit_images[:, :k], unit_texts[:, :k], temperature, normalize=False) for k in prefixes]
        mistakes = {
            "this is the sum over the prefixes; take the mean": terms.sum(),
            "this is one loss a prefix; take their mean": terms,
            "only the first prefix counts here; is the return inside the loop?": terms[0],
            "only the last prefix counts here; collect the loss of each": terms[-1],
            "these are the last k components; a prefix is the first k": (
                torch.stack([symmetric(images[:, -k:], texts[:, -k:], temperature) for k in prefixes]).mean()
            ),
            "this is component k alone; a prefix is all components before it, [:, :k]": (
                torch.stack([symmetric(images[:, [k]], texts[:, [k]], temperature) for k in prefixes]).mean()
            ),
            "this cuts the first k rows, which are pairs; components are along dim 1": (
                torch.stack([symmetric(images[:k], texts[:k], temperature) for k in prefixes]).mean()
            ),
            "the features are normalised before they are cut; a prefix is shorter than 1 then, so normalise after": (
                torch.stack(cut_late).mean()
            ),
            "the temperature is not passed on, so 0.07 is used": torch.stack(
                [symmetric(x, y, 0.07) for x, y in pairs]
            ).mean(),
            "the prefixes are not used; this is the loss of all components": symmetric(images, texts, temperature),
            "this is image to text only; the contrastive loss takes both directions": torch.stack(one_way, 0).mean(),
        }
        result = attempt(answer, images.clone(), texts.clone(), list(prefixes), temperature)
        agree("nested_prefix_loss", result, terms.mean(), mistakes)
    passed("nested_prefix_loss")


def check_recall_at_k(answer: Callable[[Tensor, Tensor, int], float | Tensor]) -> None:
    """``answer(similarity, image_of_caption, k)``: the share of images, in percent, that have at least one caption of
    their own among the ``k`` of their row in ``[images, captions]`` that score highest."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        images = int(torch.randint(20, 30, (), generator=generator))
        captions, k = 3 * images, 5 - case % 5
        image_of_caption = owners(images, captions, generator)
        own = image_of_caption == torch.arange(images)[:, None]  # [images, captions]
        similarity = torch.randn(images, captions, generator=generator) + 2 * own
        place = 1 + (similarity[:, None, :] > similarity[:, :, None]).sum(2)  # [images, captions], 1 being first
        found = own & (place <= k)
        rows = similarity.argsort(dim=1, descending=True)[:, :k]  # [images, k]
        columns = 1 + (similarity[None] > similarity[:, None]).sum(1)  # [images, captions], the place in the column
        mistakes = {
            "this is a share from 0 to 1; recall is asked for in percent": found.any(1).double().mean(),
            "this counts the captions found and divides by those an image has; one found is enough": (
                100 * (found.sum(1) / own.sum(1)).double().mean()
            ),
            "this counts every caption found; an image with two of them among the first k counts once": (
                100 * found.sum() / images
            ),
            "this divides the captions found by k; one found is enough": 100 * found.sum() / (images * k),
            "row i does not belong to column i here, since images have several captions; look at image_of_caption": (
                100 * (rows == torch.arange(images)[:, None]).any(1).double().mean()
            ),
            "this is text to image, the other direction; each image should look through all captions": (
                100 * (columns.T[own.T] <= k).double().mean()
            ),
            "these are the captions that score lowest; sort in descending order": (
                100 * (own & (captions - place < k)).any(1).double().mean()
            ),
            "only the first place is looked at; an own caption may be anywhere among the first k": (
                100 * (own & (place == 1)).any(1).double().mean()
            ),
        }
        result = attempt(answer, similarity.clone(), image_of_caption.clone(), k)
        result = torch.tensor(float(result)) if isinstance(result, int | float) else result
        agree("image_to_text_recall", result, 100 * found.any(1).double().mean(), mistakes)
    passed("image_to_text_recall")


def check_rank_with_ties(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``answer(similarity, image_of_caption)``: int64 ``[captions]``, the rank of each caption's image, 1 being first;
    a wrong image with the same score as the right one is ranked before it. ``similarity`` is ``[images, captions]``."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        images = int(torch.randint(4, 8, (), generator=generator))
        captions = 3 * images
        image_of_caption = owners(images, captions, generator)
        similarity = torch.randint(-3, 4, (images, captions), generator=generator) / 4  # with many ties
        similarity = torch.zeros_like(similarity) if case == CASES - 1 else similarity
        right = similarity[image_of_caption, torch.arange(captions)]  # [captions]
        own = image_of_caption == torch.arange(images)[:, None]  # [images, captions]
        order = similarity.argsort(dim=0, descending=True, stable=True)  # [images, captions]
        better, alike = (similarity > right).sum(0), ((similarity == right) & ~own).sum(0)
        reference = 1 + better + alike
        best_own = similarity.masked_fill(~own, float("-inf")).amax(1, keepdim=True)
        mistakes = {
            "a tie is counted for the model: where all scores are alike, every rank would be 1; count what scores at "
            "least as high": 1 + better,
            "a rank begins at 1, not at 0": reference - 1,
            "the right image is counted as one before itself; leave it out, or do not add the 1": reference + 1,
            "this takes the order of a sort, which settles ties by chance; count what scores at least as high": (
                1 + order.argsort(dim=0)[image_of_caption, torch.arange(captions)]
            ),
            "this counts the images that score lower; those that score at least as high stand before the right one": (
                1 + (similarity < right).sum(0)
            ),
            "this is the number of captions that beat the right one in its row; a text looks through all images, "
            "down its column": (similarity[image_of_caption] >= right[:, None]).sum(1),
            "these are ranks from image to text, the other direction": 1 + ((similarity >= best_own) & ~own).sum(1),
        }
        given = similarity.clone()
        result = attempt(answer, given, image_of_caption.clone())
        expect(torch.equal(given, similarity), "this changes the similarities it was given; work on new tensors")
        agree("text_to_image_ranks", result, reference, mistakes)
        expect(result.dtype == torch.long, f"a rank is a whole number, int64, not {result.dtype}")
    passed("text_to_image_ranks")


def check_warm_up(answer: Callable[[float, float], float]) -> None:
    """``answer(progress, warm_up)``: a straight line from 0 to 1 over the share ``warm_up`` of the training, then half
    a cosine from 1 down to 0."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        progress, warm_up = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        warm_up = 0.1 + 0.4 * warm_up
        # Rising and falling in turn, and the three corners last.
        progress = warm_up + progress * (1 - warm_up) if case % 2 else progress * warm_up
        progress = {CASES - 3: 0.0, CASES - 2: warm_up, CASES - 1: 1.0}.get(case, progress)
        rising = progress < warm_up
        since = (progress - warm_up) / (1 - warm_up)
        line = progress / warm_up
        mistakes = {
            "the cosine is used before it begins; up to warm_up the factor is a straight line": (
                (1 + math.cos(math.pi * since)) / 2
            ),
            "during the warm-up the factor is 1; it should rise from 0 to 1": (
                1.0 if rising else (1 + math.cos(math.pi * since)) / 2
            ),
            "after the warm-up the factor stays at 1; it should fall along half a cosine": min(line, 1.0),
            "the cosine begins at progress 0, so the factor jumps down where the warm-up ends; let it begin there": (
                line if rising else (1 + math.cos(math.pi * progress)) / 2
            ),
            "the warm-up is missing: the factor should rise from 0 to 1 first": (1 + math.cos(math.pi * progress)) / 2,
            "this falls in a straight line; half a cosine is slow at both ends": line if rising else 1 - since,
            "this is a whole period, which comes back to 1; half a cosine ends at 0": (
                line if rising else (1 + math.cos(2 * math.pi * since)) / 2
            ),
            "a cosine runs from 1 to -1, and a negative learning rate climbs; (1 + cosine) / 2 runs from 1 to 0": (
                line if rising else math.cos(math.pi * since)
            ),
            "this is a quarter of a cosine; half of one is slow at its end too": (
                line if rising else math.cos(math.pi * since / 2)
            ),
            "the time since the warm-up is divided by 1; it lasts 1 - warm_up, so the factor does not reach 0": (
                line if rising else (1 + math.cos(math.pi * (progress - warm_up))) / 2
            ),
            "the rise ends below 1: divide the progress by warm_up": (
                progress if rising else (1 + math.cos(math.pi * since)) / 2
            ),
            "the rise is half a cosine too; it should be a straight line": (
                (1 - math.cos(math.pi * line)) / 2 if rising else (1 + math.cos(math.pi * since)) / 2
            ),
        }
        result = attempt(answer, progress, warm_up)
        result = torch.tensor(float(result), dtype=torch.float64) if isinstance(result, int | float) else result
        reference = torch.tensor(line if rising else math.cos(math.pi * since / 2) ** 2)
        agree("warm_up_then_cosine", result, reference, {text: torch.tensor(wrong) for text, wrong in mistakes.items()})
    passed("warm_up_then_cosine")


def check_paired_interval(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``answer(values, baseline)``, ``[seeds]`` each: ``[3]``, the mean of the differences and the low and high end of
    its 95 % interval by Student's t."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        seeds = 3 + case % 6
        common = 5 * torch.randn(seeds, generator=generator, dtype=torch.float64)  # what a seed does to both
        values, baseline = 50 + common + torch.randn(2, seeds, generator=generator, dtype=torch.float64)
        differences = values - baseline
        mean, error = differences.mean(), differences.std() / seeds**0.5
        unpaired = ((values.var() + baseline.var()) / seeds) ** 0.5
        quantile = float(stats.t.ppf(0.975, seeds - 1))

        def ends(half: Tensor, mean: Tensor = mean) -> Tensor:
            return torch.stack([mean, mean - half, mean + half])

        mistakes = {
            "this is baseline minus values; a gain over the baseline should be positive": ends(quantile * error, -mean),
            "this treats the two sides as unpaired; take the differences first, seed by seed": ends(
                quantile * unpaired
            ),
            "the differences are paired, but their spread is not divided by the square root of the number of seeds": (
                ends(quantile * differences.std())
            ),
            "the spread is divided by the number of seeds; divide by its square root": (
                ends(quantile * differences.std() / seeds)
            ),
            "the standard deviation divides by n here; of a sample divide by n - 1": (
                ends(quantile * differences.std(correction=0) / seeds**0.5)
            ),
            "1.96 belongs to the normal distribution; with so few seeds take Student's t": ends(1.96 * error),
            "the degrees of freedom are the number of seeds less one": ends(float(stats.t.ppf(0.975, seeds)) * error),
            "the quantile is taken at 0.95, which leaves 5 % on each side; take 0.975": (
                ends(float(stats.t.ppf(0.95, seeds - 1)) * error)
            ),
            "this is one standard error to each side; multiply by the quantile of t": ends(error),
            "the ends have changed places; low comes first": ends(-quantile * error),
        }
        result = attempt(answer, values.clone(), baseline.clone())
        agree("paired_interval", result, ends(quantile * error), mistakes)
    passed("paired_interval")


def check_in_batch_accuracy(answer: Callable[[Tensor, Tensor, int], float | Tensor]) -> None:
    """``answer(image_features, text_features, batch_size)``, ``[pairs, dim]`` each, row by row pairs: in percent, how
    often the diagonal has the highest cosine of its row, and of its column, within whole batches of consecutive
    pairs; what is left over at the end is left out."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        batch_size = 8 + case % 5
        pairs = 7 * batch_size + batch_size // 2
        images, texts = torch.randn(2, pairs, 6, generator=generator)
        texts = (images + 0.8 * texts) * torch.linspace(0.3, 3, pairs)[torch.randperm(pairs, generator=generator), None]
        x, y = (side / side.norm(dim=1, keepdim=True) for side in (images, texts))

        def right(similarity: Tensor, size: int, whole: bool = True) -> Tensor:
            """``[pairs, 2]``: whether the diagonal wins its row, and its column, within batches of this size."""
            found = []
            for start in range(0, len(similarity) - (size - 1 if whole else 0), size):
                block = similarity[start : start + size, start : start + size]
                own = torch.arange(len(block))
                found.append(torch.stack([block.argmax(1) == own, block.argmax(0) == own], dim=1))
            return 100 * torch.cat(found).double()

        hits = right(x @ y.T, batch_size)
        mistakes = {
            "this is a share from 0 to 1; percent is asked for": hits.mean() / 100,
            "the features are not normalised, so the longest text wins; compare cosines": (
                right(images @ texts.T, batch_size).mean()
            ),
            "this is image to text alone; take the mean of both directions": hits[:, 0].mean(),
            "this is text to image alone; take the mean of both directions": hits[:, 1].mean(),
            "this compares all pairs with each other, which is recall at 1; stay within a batch": (
                right(x @ y.T, pairs).mean()
            ),
            "the few pairs left over at the end are a smaller batch, and an easier one; leave them out": (
                right(x @ y.T, batch_size, whole=False).mean()
            ),
            "only the first batch counts here; is the return inside the loop?": hits[:batch_size].mean(),
            "only the last batch counts here; collect the hits of each": hits[-batch_size:].mean(),
            "a pair counts here only when both directions are right; count each for itself": hits.amin(1).mean(),
        }
        result = attempt(answer, images.clone(), texts.clone(), batch_size)
        result = torch.tensor(float(result)) if isinstance(result, int | float) else result
        agree("in_batch_accuracy", result, hits.mean(), mistakes)
    passed("in_batch_accuracy")


def check_sign_flip_p_value(answer: Callable[[Tensor], float | Tensor]) -> None:
    """``answer(differences)``, ``[seeds]``: the share of all ways to choose the signs of the differences of which the
    mean lies at least as far from zero as the one seen."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        seeds = 3 + case % 5
        differences = torch.randn(seeds, generator=generator, dtype=torch.float64) + (0.0, 0.8, -0.8)[case % 3]
        if case == CASES - 1:
            differences = differences.sign()  # many means are alike
        signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=seeds))).double()  # [2 ** seeds, seeds]
        means, seen = (signs * differences).mean(1), differences.mean()  # [2 ** seeds]
        as_far = means.abs() >= seen.abs() - 1e-9
        shares = as_far.double().mean()
        mistakes = {
            "this looks at one side only; a mean as far below zero counts as well": (
                (means >= seen - 1e-9).double().mean()
            ),
            "this counts the means that lie farther out; one that is as far counts too, such as the one seen": (
                (means.abs() > seen.abs() + 1e-9).double().mean()
            ),
            "this is how many ways there are; divide by the number of all": as_far.double().sum(),
            "the p-value is the share of means as far out as the one seen; this is the share of the others": 1 - shares,
            "here all signs are flipped together; each seed has a sign of its own": torch.tensor(1.0),
            "this flips one sign at a time; there are two choices for every seed, 2 ** seeds ways in all": (
                (((1 - 2 * torch.eye(seeds).double()) * differences).mean(1).abs() >= seen.abs() - 1e-9).double().mean()
            ),
        }
        result = attempt(answer, differences.clone())
        result = torch.tensor(float(result)) if isinstance(result, int | float) else result
        agree("sign_flip_p_value", result, shares, mistakes)
    passed("sign_flip_p_value")


def check_online_logsumexp(answer: Callable[[list[Tensor]], Tensor]) -> None:
    """``answer(blocks)``: ``[rows, columns]`` each, the same rows, to the log-sum-exp ``[rows]`` over all columns."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        widths = torch.randint(1, 6, (3,), generator=generator).tolist()
        logits = torch.randn(5, sum(widths), generator=generator) * (
            2 if case < CASES // 2 else 400
        )  # the last too large for exp
        blocks = list(logits.split(widths, dim=1))
        largest = torch.stack([block.amax(1) for block in blocks]).cummax(0).values  # [blocks, rows], so far
        of_blocks = torch.stack([block.logsumexp(1) for block in blocks])  # [blocks, rows]
        below = torch.stack(
            [(block - so_far[:, None]).exp().sum(1) for block, so_far in zip(blocks, largest, strict=True)]
        )
        mistakes = {
            "the exponentials are taken of the logits themselves, which float32 cannot hold; subtract the largest": (
                logits.exp().sum(1).log()
            ),
            "when a larger logit comes, what was summed before must shrink by exp(largest before - largest now)": (
                largest[-1] + below.sum(0).log()
            ),
            "the largest logit was subtracted and is not added again at the end": below_all(logits).log(),
            "this is the sum of the exponentials; take its logarithm, and add the largest": below_all(logits),
            "this is the largest logit alone, without the sum": logits.amax(1),
            "this adds up the log-sum-exps of the blocks; their exponentials add up": of_blocks.sum(0),
            "this is the log-sum-exp of the last block only": of_blocks[-1],
            "this goes down the columns; each row needs a number, over its columns": of_blocks.T.logsumexp(0),
        }
        agree("online_logsumexp", attempt(answer, [block.clone() for block in blocks]), logits.logsumexp(1), mistakes)
    passed("online_logsumexp")


def below_all(logits: Tensor) -> Tensor:
    """The sum of the exponentials of each row, its largest logit subtracted; ``[rows]``."""
    return (logits - logits.amax(1, keepdim=True)).exp().sum(1)


def check_merge_ranks(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``answer(largest, totals)``: of each rank's part of each column the largest logit and the sum of the exponentials
    below it, ``[ranks, columns]`` both, to the log-sum-exp ``[columns]`` of the whole columns."""
    generator = torch.Generator().manual_seed(0)
    for case in range(CASES):
        ranks = int(torch.randint(2, 5, (), generator=generator))
        logits = 3 * torch.randn(ranks, 6, 4, generator=generator)  # [ranks, rows, columns]
        logits += (0.0, 1000.0, -1000.0)[case % 3]
        largest = logits.amax(1)  # [ranks, columns]
        totals = (logits - largest[:, None]).exp().sum(1)  # [ranks, columns]
        of_ranks = largest + totals.log()  # [ranks, columns]
        mistakes = {
            "the largest logits of the ranks differ, so their sums must shrink to one measure before they are added": (
                largest.amax(0) + totals.sum(0).log()
            ),
            "exp of the largest logits is more than float32 can hold; subtract the largest of all ranks first": (
                (totals * largest.exp()).sum(0).log()
            ),
            "the largest logit of all ranks is not added again at the end": (of_ranks.logsumexp(0) - largest.amax(0)),
            "this adds up the log-sum-exps of the ranks; their exponentials add up": of_ranks.sum(0),
            "this is the largest of the ranks' log-sum-exps; the others count too": of_ranks.amax(0),
            "this is the log-sum-exp of the largest logits alone; totals is not used": largest.logsumexp(0),
            "this is the mean over the ranks, which lacks the logarithm of their number": (
                of_ranks.logsumexp(0) - math.log(ranks)
            ),
        }
        result = attempt(answer, largest.clone(), totals.clone())
        agree("merge_ranks", result, of_ranks.logsumexp(0), mistakes)
    passed("merge_ranks")


def check_bytes_received(answer: Callable[[int, int, int], int]) -> None:
    """``answer(batch, dim, ranks)``: the bytes that reach one rank in a step in which the float32 features of both
    sides are gathered, and their gradients come back; ``batch`` counts the pairs of all ranks."""
    generator = random.Random(0)
    for _ in range(CASES):
        ranks, dim = generator.randrange(3, 9), generator.randrange(16, 1024)
        batch = ranks * generator.randrange(3, 200)
        others = batch - batch // ranks
        right = 2 * 2 * 4 * others * dim
        mistakes = {
            "a rank's own features need not reach it; only those of the others do": 16 * batch * dim,
            "this counts the rank's own features, in place of those of the others": 16 * batch // ranks * dim,
            "this is half of it: two sides are gathered, and in the backward pass as many gradients come again": right
            // 2,
            "this is a quarter of it: a float32 has four bytes, and two sides travel forward and back": right // 4,
            "this is what all ranks receive together; batch counts the pairs of all, and one rank is asked for": (
                right * ranks
            ),
            "these are bits; a byte has eight of them": right * 8,
            "this is our own way, one side and a number a column and rank; here both sides are gathered": (
                2 * (4 * others * dim + 8 * (ranks - 1) * batch)
            ),
        }
        result = attempt(answer, batch, dim, ranks)
        hint = "; is a return missing?" if result is None else ""
        expect(
            isinstance(result, int | float), f"bytes_received must return a number, not {type(result).__name__}{hint}"
        )
        wrong = {sentence: torch.tensor(float(value)) for sentence, value in mistakes.items()}
        agree("bytes_received", torch.tensor(float(result)), torch.tensor(float(right)), wrong)
    passed("bytes_received")
