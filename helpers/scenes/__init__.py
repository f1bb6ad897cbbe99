"""Scenes: images of coloured shapes whose truth is known, with captions from vague to exact."""

from helpers.scenes.captions import COLOURS as COLOURS
from helpers.scenes.captions import LEVELS as LEVELS
from helpers.scenes.captions import SHAPES as SHAPES
from helpers.scenes.captions import Scene as Scene
from helpers.scenes.captions import Thing as Thing
from helpers.scenes.captions import caption_probabilities as caption_probabilities
from helpers.scenes.captions import ceiling as ceiling
from helpers.scenes.captions import fit_matrix as fit_matrix
from helpers.scenes.captions import fits as fits
from helpers.scenes.captions import position as position
from helpers.scenes.captions import truth_oracle as truth_oracle
from helpers.scenes.captions import wordings as wordings
from helpers.scenes.render import EASY as EASY
from helpers.scenes.render import HARD as HARD
from helpers.scenes.render import SPLITS as SPLITS
from helpers.scenes.render import Difficulty as Difficulty
from helpers.scenes.render import read_truth as read_truth
from helpers.scenes.render import render_scene as render_scene
from helpers.scenes.render import sample_scene as sample_scene
from helpers.scenes.render import truth_of as truth_of
from helpers.scenes.render import write_scenes as write_scenes
