"""The checks of lesson 00: the temperature with the lowest loss, and what the search ignores."""

from helpers.checks.core import Choice, Setting

check_lowest_loss = Setting(
    "lowest loss",
    low=0.049,
    high=0.064,
    too_low="here the loss is not yet at its smallest: one wrong answer, given with certainty, costs a lot; go right",
    too_high="here the loss is larger than necessary: the model is less certain than it could be; go left",
    right="the loss of these 16 pairs is smallest near 0.056; other pairs have their lowest loss elsewhere.",
)

check_what_search_ignores = Choice(
    "what the search ignores",
    right="b",
    a='look again at "a blue circle and a red square": are all six drawings right?',
    b="single things are found well; of two things, one often has the wrong colour or shape.",
    c='all results for "a blue circle and a red square" have something red; the second thing counts too',
    d='search for "a blue square" and "a red square": the results differ in their colours',
)
