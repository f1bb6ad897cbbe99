"""The exercises' checks: each compares an answer with a reference on random inputs and names the mistake."""

from helpers.checks.core import check_anchor_loss as check_anchor_loss
from helpers.checks.core import check_bytes_received as check_bytes_received
from helpers.checks.core import check_collate as check_collate
from helpers.checks.core import check_cosine_schedule as check_cosine_schedule
from helpers.checks.core import check_effective_negatives as check_effective_negatives
from helpers.checks.core import check_flip_caption as check_flip_caption
from helpers.checks.core import check_gradient_shares as check_gradient_shares
from helpers.checks.core import check_in_batch_accuracy as check_in_batch_accuracy
from helpers.checks.core import check_l2_normalize as check_l2_normalize
from helpers.checks.core import check_mask_same_image as check_mask_same_image
from helpers.checks.core import check_merge_ranks as check_merge_ranks
from helpers.checks.core import check_multi_positive_loss as check_multi_positive_loss
from helpers.checks.core import check_nested_prefix_loss as check_nested_prefix_loss
from helpers.checks.core import check_online_logsumexp as check_online_logsumexp
from helpers.checks.core import check_pad as check_pad
from helpers.checks.core import check_paired_interval as check_paired_interval
from helpers.checks.core import check_pool_regions as check_pool_regions
from helpers.checks.core import check_rank_with_ties as check_rank_with_ties
from helpers.checks.core import check_recall_at_k as check_recall_at_k
from helpers.checks.core import check_sign_flip_p_value as check_sign_flip_p_value
from helpers.checks.core import check_text_to_image_loss as check_text_to_image_loss
from helpers.checks.core import check_token_wise_similarity as check_token_wise_similarity
from helpers.checks.core import check_warm_up as check_warm_up
