"""Large batches: the loss without its matrix, cached gradients, several processes, shards, and what each costs."""

from helpers.scale.blockwise import blockwise_contrastive_loss as blockwise_contrastive_loss
from helpers.scale.distributed import local_contrastive_loss as local_contrastive_loss
from helpers.scale.distributed import process_group as process_group
from helpers.scale.distributed import rank_slice as rank_slice
from helpers.scale.gradient_cache import gradient_cached_step as gradient_cached_step
from helpers.scale.gradient_cache import random_state as random_state
from helpers.scale.gradient_cache import restore_random_state as restore_random_state
