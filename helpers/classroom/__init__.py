"""The course on a learner's machine: copies of the notebooks, the pairs, and notebooks executed in place."""
