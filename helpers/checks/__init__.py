"""The checks of the exercises: each compares an answer with the right one on random inputs and names the mistake."""

from helpers.checks.lesson01 import check_collate, check_flip_caption, check_pad
from helpers.checks.lesson02 import (
    check_l2_normalize,
    check_mask_same_image,
    check_multi_positive_loss,
    check_text_to_image_loss,
)
from helpers.checks.lesson03 import (
    check_anchor_loss,
    check_cosine_schedule,
    check_effective_negatives,
    check_gradient_shares,
)
from helpers.checks.lesson04 import check_nested_prefix_loss, check_pool_regions, check_token_wise_similarity
from helpers.checks.lesson05 import (
    check_loss_curves,
    check_my_clip,
    check_recall_at_k,
    check_training_step,
    check_which_checkpoint,
)
from helpers.checks.lesson06 import check_in_batch_accuracy, check_paired_interval, check_sign_flip_p_value
from helpers.checks.lesson08 import check_bytes_received, check_merge_ranks, check_online_logsumexp
