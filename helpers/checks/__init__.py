"""The checks of the exercises: each compares an answer with the right one on random inputs and names the mistake."""

from helpers.checks.lesson00 import check_lowest_loss, check_what_search_ignores
from helpers.checks.lesson01 import (
    check_captions_to_keep,
    check_collate,
    check_larger_batch,
    check_learns_no_words,
    check_pad,
)
from helpers.checks.lesson02 import (
    check_find_the_bug,
    check_l2_normalize,
    check_mask_same_image,
    check_multi_positive_loss,
    check_symmetric_loss,
)
from helpers.checks.lesson03 import (
    check_cosine_schedule,
    check_effective_negatives_of_batch,
    check_repulsion_shares,
    check_rising_loss,
    check_scale_bug,
    check_ten_negatives,
)
from helpers.checks.lesson04 import (
    check_multi_scale_loss,
    check_pool_regions,
    check_read_report,
    check_token_wise_similarity,
    check_wrong_axis,
)
from helpers.checks.lesson05 import (
    check_loss_curves,
    check_my_clip,
    check_recall_at_k,
    check_training_step,
    check_which_checkpoint,
)
from helpers.checks.lesson06 import check_in_batch_accuracy, check_paired_interval, check_sign_flip_p_value
from helpers.checks.lesson07 import check_classify, check_fine_tuning, check_is_it_zero_shot, check_suspects
from helpers.checks.lesson08 import (
    check_break_even_ranks,
    check_divided_loss,
    check_held_memory,
    check_merge_ranks,
    check_sigmoid_loss_in_blocks,
)
