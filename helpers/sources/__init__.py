"""Where pairs come from: COCO, tables, folders, your own photographs, emoji. `open_pairs` reads them all."""

from helpers.sources.coco import Record, read_annotations, read_captions
from helpers.sources.emoji import ATTRIBUTION
from helpers.sources.folders import open_pairs
from helpers.sources.images import read_image
from helpers.sources.snapshots import load_snapshots
