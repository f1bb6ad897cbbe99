"""Where pairs come from: COCO, tables, folders, your own photographs, emoji. `open_pairs` reads them all."""

from helpers.sources.coco import Record as Record
from helpers.sources.coco import read_annotations as read_annotations
from helpers.sources.coco import read_captions as read_captions
from helpers.sources.emoji import ATTRIBUTION as ATTRIBUTION
from helpers.sources.folders import open_pairs as open_pairs
from helpers.sources.images import read_image as read_image
from helpers.sources.snapshots import load_snapshots as load_snapshots
