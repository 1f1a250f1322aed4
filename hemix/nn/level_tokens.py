"""Tokens by meaning: the columns of a level, such as the user's, are cut into a few sections, and
each section has a map of its own to a token (semantic grouping, as of RankMixer's successors).

A user's tokens are made once per user, the context's once per request.

Letters: R rows, w width of a level's vectors, D token width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.layers import GroupedLinear

__all__ = ["LevelTokens"]


class LevelTokens(nn.Module):
    """A few tokens for every level that has columns."""

    def __init__(
        self, widths: Mapping[str, int], *, per_level: int, width: int, hidden: bool = False
    ) -> None:
        """Make the maps.

        Args:
            widths: w of every level (:func:`~hemix.nn.inputs.level_widths`) or other group.
            per_level: Tokens of a level, at most: a level has no more than it has columns.
            width: D, the width of a token.
            hidden: Two layers, D units inside, in place of one linear map.
        """
        super().__init__()
        self.width = width
        self.counts = {name: min(per_level, columns) for name, columns in widths.items()}
        self.sections = {
            name: -(-widths[name] // count) for name, count in self.counts.items() if count
        }
        self.first = nn.ModuleDict(
            {
                name: GroupedLinear(self.counts[name], columns, width)
                for name, columns in self.sections.items()
            }
        )
        self.second = nn.ModuleDict(
            {
                name: GroupedLinear(self.counts[name], width, width)
                for name in self.sections
                if hidden
            }
        )

    def count(self, *levels: str) -> int:
        """Return how many tokens some levels have together."""
        return sum(self.counts[level] for level in levels)

    def forward(self, level: str, rows_Rw: Tensor | None) -> Tensor:
        """Return the tokens of a level, [R, count, D], in the parameters' precision.

        They are gathered afterwards, and the gradients of a gather add up many rows.

        Args:
            level: Its name.
            rows_Rw: Its vectors.
        """
        assert rows_Rw is not None, f"the level {level} was not embedded"
        count, rows = self.counts[level], rows_Rw.shape[0]
        if count == 0:
            return rows_Rw.new_zeros(rows, 0, self.width)
        section, first = self.sections[level], self.first[level]
        assert isinstance(first, GroupedLinear)
        rows_Rw = rows_Rw.to(first.weight.dtype)
        padded_Rx = F.pad(rows_Rw, (0, count * section - rows_Rw.shape[1]))
        with torch.autocast(rows_Rw.device.type, enabled=False):
            sections_cRx = padded_Rx.reshape(rows, count, section).transpose(0, 1)
            tokens_cRD: Tensor = first(sections_cRx)
            if level in self.second:
                tokens_cRD = self.second[level](F.gelu(tokens_cRD))
        return tokens_cRD.transpose(0, 1)
