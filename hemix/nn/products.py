"""Dot products of pairs of fields, as plain inputs: a match between two ids is a product, which a
perceptron learns slowly.

The idea is DLRM's (Naumov et al. 2019, section 2.1.4); decision 12 has what it brings. Pairs within
a request are made once per request, those with a candidate's field once per candidate.

Letters: R users, Q requests, N candidates, F fields, d width of a table, c fields of a
candidate, p pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hemix.data.spec import InputSpec
from hemix.nn.inputs import Inputs
from hemix.nn.pooled import PooledFields, PooledState

__all__ = ["FieldProducts", "cross_dots", "pair_dots"]


def pair_dots(vectors_NFd: Tensor) -> Tensor:
    """[N, F (F - 1) / 2]: dot products of vectors i > j, row by row of the lower triangle; none of
    fewer than two vectors."""
    F = vectors_NFd.shape[1]
    if F < 2:  # an exporter refuses to index with nothing
        return vectors_NFd.new_zeros(vectors_NFd.shape[0], 0)
    below, left = torch.tril_indices(F, F, -1, device=vectors_NFd.device)
    dots_NFF = torch.bmm(vectors_NFd, vectors_NFd.transpose(1, 2))
    return dots_NFF.flatten(1).index_select(1, below * F + left)


def cross_dots(vectors_Ncd: Tensor, others_NFd: Tensor) -> Tensor:
    """Return the dot products of candidate fields with request fields, then among themselves.

    Args:
        vectors_Ncd: The candidates' fields.
        others_NFd: The fields of each candidate's request.

    Returns:
        [N, c * F + c * (c - 1) / 2].
    """
    if not vectors_Ncd.shape[1] or not others_NFd.shape[1]:
        return pair_dots(vectors_Ncd)
    crossed_NcF = torch.bmm(vectors_Ncd, others_NFd.transpose(1, 2))
    if vectors_Ncd.shape[1] < 2:
        return crossed_NcF.flatten(1)
    return torch.cat([crossed_NcF.flatten(1), pair_dots(vectors_Ncd)], 1)


class FieldProducts(nn.Module):
    """Products of all pairs of the levels' fields and of the columns of pooled histories.

    In the weights' precision under autocast too.
    """

    def __init__(self, spec: InputSpec, embedding_size: int, histories: Sequence[str]) -> None:
        """Lay out the fields.

        Args:
            spec: The columns of the levels.
            embedding_size: d, the width of a table.
            histories: Which of ``global`` and ``realtime`` are pooled to further fields.
        """
        super().__init__()
        self.fields = PooledFields(spec, embedding_size, histories)

    @property
    def request_count(self) -> int:
        """p, the pairs of a request."""
        F = self.fields.request_count
        return F * (F - 1) // 2

    @property
    def candidate_count(self) -> int:
        """p, the pairs with a field of a candidate."""
        c = self.fields.candidate_count
        return c * self.fields.request_count + c * (c - 1) // 2

    def of_users(self, inputs: Inputs) -> PooledState:
        """The users' fields and the events' columns."""
        return self.fields.of_users(inputs)

    def of_requests(self, state: PooledState, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the requests' fields and the products of their pairs.

        Args:
            state: The users' fields and events.
            inputs: Inputs with the stage ``request``.

        Returns:
            Fields [Q, F, d] and products [Q, p].
        """
        fields_QFd = self.fields.of_requests(state, inputs).fields
        with torch.autocast(fields_QFd.device.type, enabled=False):
            return fields_QFd, pair_dots(fields_QFd)

    def of_candidates(self, request_QFd: Tensor, inputs: Inputs) -> Tensor:
        """Return the products of candidate fields with request fields and each other, [N, p].

        Args:
            request_QFd: The requests' fields.
            inputs: Inputs with the stage ``candidate``.
        """
        fields_Ncd = self.fields.candidate(inputs)
        with torch.autocast(fields_Ncd.device.type, enabled=False):
            return cross_dots(fields_Ncd, request_QFd.index_select(0, inputs.batch.request_index))
