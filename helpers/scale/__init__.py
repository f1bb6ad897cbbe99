"""Large batches: the loss without its matrix, cached gradients, several processes, and what each costs."""

from helpers.scale.blockwise import blockwise_contrastive_loss
from helpers.scale.distributed import local_contrastive_loss, process_group, rank_slice
from helpers.scale.gradient_cache import gradient_cached_step
