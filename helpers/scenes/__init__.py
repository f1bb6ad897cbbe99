"""Scenes: images of coloured shapes whose truth is known, with captions from vague to exact."""

from helpers.scenes.captions import (
    COLOURS,
    LEVELS,
    SHAPES,
    Scene,
    Thing,
    caption_probabilities,
    ceiling,
    fit_matrix,
    fits,
    position,
)
from helpers.scenes.render import EASY, HARD, SPLITS, read_truth, render_scene, truth_of, write_scenes
