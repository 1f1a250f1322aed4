"""Attention to events to each of which a learned vector of its age is added.

Keys and values are linear in that vector, so its part is split off exactly. Scores by age bucket
are added to those of the events. Values by age bucket are weighted by the mass of each bucket.

Letters: B users, C requests a user, J queries a request, H heads, L keys a user, d width of a head.
A is the number of age buckets, with one for events without an age.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hemix.nn.history_state import NO_AGE, GroupKeys

__all__ = ["age_attention", "age_attention_weights"]


def age_attention(
    keys: GroupKeys,
    q_BHCJd: Tensor,
    table_hA: Tensor,
    age_keys_AHd: Tensor,
    age_values_AHd: Tensor,
) -> Tensor:
    """Return what queries read, [B, H, C, J, d].

    Args:
        keys: Of the group, not absorbed.
        q_BHCJd: Queries, scaled.
        table_hA: Summands of scores by bucket; -inf hides a key.
        age_keys_AHd: The ages' vectors as keys.
        age_values_AHd: The ages' vectors as values.
    """
    weights, mass = age_attention_weights(keys, q_BHCJd, table_hA, age_keys_AHd)
    of_events = torch.einsum("bhcjl,blhd->bhcjd", weights, keys.values_BLky)
    return of_events + torch.einsum("bhcja,ahd->bhcjd", mass, age_values_AHd)


def age_attention_weights(
    keys: GroupKeys, q_BHCJd: Tensor, table_hA: Tensor, age_keys_AHd: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weights of keys [B, H, C, J, L] and their sums by age bucket [B, H, C, J, A].

    Args:
        keys: Of the group, not absorbed.
        q_BHCJd: Queries, scaled.
        table_hA: Summands of scores by bucket; -inf hides a key.
        age_keys_AHd: The ages' vectors as keys.
    """
    bucket_BCL = keys.bucket_BCL.long()
    hidden_BCL = table_hA[0].index_select(0, bucket_BCL.flatten()).view(bucket_BCL.shape)
    by_bucket = torch.einsum("bhcjd,ahd->bhcja", q_BHCJd, age_keys_AHd)
    scores = torch.einsum("bhcjd,blhd->bhcjl", q_BHCJd, keys.keys_BLhx)
    bucket = bucket_BCL.clamp(max=NO_AGE)[:, None, :, None].expand(scores.shape)
    weights = (scores + hidden_BCL[:, None, :, None] + by_bucket.gather(-1, bucket)).softmax(-1)
    return weights, torch.zeros_like(by_bucket).scatter_add(-1, bucket, weights)
