"""The code behind the lessons: one idea per file, in reading order. Each lesson builds its part by hand first.

text                words to token ids                                          lesson 01
data                pairs on disk to batches                                    lesson 01
augmentation        flips and crops that keep captions true                     lesson 01
losses              the contrastive loss and its family                         lesson 02
temperature         constant, scheduled, learned                                lesson 03
diagnostics         which negatives get the gradient; where features lie         lesson 03
gap_toy             nine pairs where a modality gap helps                       lesson 03
encoders            small encoders, one space; heads on frozen features         lessons 04, 05 and 07
regularizers        terms added to the loss                                     lesson 04
regularizer_report  what a term really does                                     lesson 04
grounding           which region matches which word                             lesson 04
optimizers          Muon, AdamW, the learning rate                              lesson 05
pretrained          frozen image encoders, and their features in a cache        lesson 07
training            Recipe, BatchLoss, train: one loop                          lesson 05
evaluation          features, ranks, recall, intervals, minimal pairs           lessons 05 and 06
report              all metrics of a checkpoint as a table, and search          lesson 05
experiments         arms, paired seeds, an interval, a verdict                  lesson 06
scale/              the loss in blocks, gradient cache, ranks, costs            lesson 08

Around the course; a learner need not open these:

scenes/             generated drawings: captions, what is true of them, rendering
sources/            other pairs: COCO, tables, folders, photographs, emoji
checks/             the checks of the exercises, one file per lesson
widgets/            the temperature explorer, the live training, the figures
classroom/          learners' copies of the notebooks, and assignments
runs                checkpoints, the log, and how a run resumes
files               clear errors, and files that are written completely or not at all
cli                 python -m helpers COMMAND
"""
