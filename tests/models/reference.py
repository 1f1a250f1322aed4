"""HeMix once more, slow and plain: the paper's equations, one impression a row, histories padded,
nothing shared.

Nobody optimises this file. It takes a HeMix's weights by name and says what its logits and
gradients must be; the tests compare. It shares with the fast path only the age of an event
(`hemix.nn.time_encoding`).

Letters: N impressions, L events (the null event first, padded), S tokens, D token width, H heads,
Dh = D / H, W feature width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.spec import MISSING, TIMELESS_MS, InputSpec, LevelSpec
from hemix.models.hemix_config import HeMixConfig
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket, rotary_angles, rotate

__all__ = ["Reference"]


class _Features:
    """The weights by name, and the features of impressions and events made of them."""

    def __init__(self, spec: InputSpec, settings: HeMixConfig, state: Mapping[str, Tensor]) -> None:
        self.spec, self.settings = spec, settings
        self.weights = {
            name: value.detach().clone().requires_grad_() for name, value in state.items()
        }
        self._first_row = dict[str, int]()
        total = 0
        for table, rows in spec.tables.items():
            self._first_row[table] = total
            total += rows

    def _(self, name: str) -> Tensor:
        return self.weights[name]

    def _rows(self, table: str, ids: Tensor) -> Tensor:
        return self._("tables.weight")[self._first_row[table] + ids]

    def _blocks(self, name: str, *parts: str) -> Tensor:
        """The whole matrix of a linear map that is held in blocks of columns."""
        blocks = [self.weights.get(f"{name}.blocks.{part}") for part in parts]
        return torch.cat([block for block in blocks if block is not None], 1)

    def _features(self, level: LevelSpec, columns: Columns, rows: Tensor) -> Tensor:
        parts = [self._rows(table, columns.ids[rows, i]) for i, table in enumerate(level.tables)]
        for table, jagged in zip(level.jagged_tables, columns.jagged, strict=True):
            means = []
            for row in rows.tolist():
                values = jagged.values[jagged.offsets[row] : jagged.offsets[row + 1]]
                means.append(
                    self._rows(table, values if len(values) else torch.tensor([MISSING])).mean(0)
                )
            parts.append(torch.stack(means))
        return torch.cat([*parts, columns.numbers[rows].to(self._("tables.weight").dtype)], 1)

    def _fields(self, level: LevelSpec, columns: Columns, row: Tensor) -> list[Tensor]:
        """The vectors of a level's ids and multi-valued features, of one row."""
        features = self._features(level, columns, row.view(1))[0]
        return list(
            features[: len(features) - level.numbers].view(-1, self.settings.embedding_size)
        )

    def _products(self, batch: RequestBatch, n: int) -> Tensor:
        """Of one impression: the pairs among the request's fields, the candidate's with those, the
        pairs among the candidate's.
        """
        request, settings = batch.request_index[n], self.settings
        own = self._fields(self.spec.user, batch.users, batch.user_index[request])
        own += self._fields(self.spec.context, batch.context, request)
        if settings.products == "histories":
            begin, middle, end = batch.history_ranges[request].tolist()
            ranges = [(begin, middle)] * settings.use_global
            ranges += [(middle, end)] * settings.use_realtime
            for first, last in ranges:
                total = [self._("tables.weight").new_zeros(settings.embedding_size)] * (
                    len(self.spec.event_item_columns) + len(self.spec.event.tables)
                )
                for event in range(first, last):
                    total = [
                        t + v for t, v in zip(total, self._event_columns(batch, event), strict=True)
                    ]
                own += [t / max(1, last - first) for t in total]
        candidate = self._fields(self.spec.item, batch.items, batch.item_index[n])
        candidate += self._fields(self.spec.cross, batch.cross, torch.tensor(n))
        dots = [own[i] @ own[j] for i in range(len(own)) for j in range(i)]
        dots += [c @ o for c in candidate for o in own]
        dots += [candidate[i] @ candidate[j] for i in range(len(candidate)) for j in range(i)]
        return torch.stack(dots)

    def _event_columns(self, batch: RequestBatch, event: int) -> list[Tensor]:
        """Vectors of what one event carries of its item, then of its own fields."""
        item, tables = int(batch.event_item[event]), self.spec.item.tables
        parts = [
            self._rows(tables[c], batch.items.ids[item, c]) for c in self.spec.event_item_columns
        ]
        return parts + [
            self._rows(table, batch.event_ids[event, f])
            for f, table in enumerate(self.spec.event.tables)
        ]

    def _candidate(self, batch: RequestBatch, n: int) -> Tensor:
        """Vector [D] of one candidate as an event: its item's columns, no action and fields."""
        item, tables = int(batch.item_index[n]), self.spec.item.tables
        parts = [
            self._rows(tables[c], batch.items.ids[item, c]) for c in self.spec.event_item_columns
        ]
        bias = self._("events.project.bias")
        return self._blocks("events.project", "item") @ torch.cat(parts) + bias if parts else bias

    def _event(self, batch: RequestBatch, event: int) -> Tensor:
        """Vector [D] of one event, without its age."""
        parts = self._event_columns(batch, event)
        names = [f"field_{f}" for f in range(len(self.spec.event.tables))]
        vector = self._blocks("events.project", "item", *names) @ torch.cat(parts) + self._(
            "events.project.bias"
        )
        return (
            vector + self._("events.timeless")
            if int(batch.event_time_ms[event]) == TIMELESS_MS
            else vector
        )


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1, but for what keeps a vector of zeros finite."""
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


class Reference(_Features):
    """The model of one set of weights.

    ``Reference(spec, settings, model.state_dict())(batch)`` gives logits [N, T]; after a backward
    pass ``weights[name].grad`` are the gradients.
    """

    def __call__(self, batch: RequestBatch) -> Tensor:
        """Logits [N, T]."""
        ns_NSD = self._tokens(batch)
        interests = self._all_interests(batch, ns_NSD)
        normed = [self._norm("norm_interests", interest) for interest in interests]
        x_NSD = torch.cat([*normed, ns_NSD], 1)
        for layer in range(self.settings.layers):
            x_NSD = self._block(f"blocks.{layer}", x_NSD)
        if self.settings.norm_position == "pre":
            x_NSD = self._norm("norm_out", x_NSD)
        return self._heads(batch, x_NSD)

    def _tokens(self, batch: RequestBatch) -> Tensor:
        """1. Tokenisation: interact, then split."""
        request_N = batch.request_index
        user_N, rows = batch.user_index[request_N], range(len(request_N))
        features_NW = torch.cat(
            [
                self._features(self.spec.user, batch.users, user_N),
                self._features(self.spec.context, batch.context, request_N),
                self._features(self.spec.item, batch.items, batch.item_index),
                self._features(self.spec.cross, batch.cross, torch.arange(len(request_N))),
            ],
            1,
        )
        if self.settings.products != "none":
            products = [self._products(batch, n) for n in rows]
            features_NW = torch.cat([features_NW, torch.stack(products)], 1)
        crossed = [f"{level}_products" for level in ("request", "candidate")]
        first = self._blocks("tokenizer.first", "user", "context", "item", "cross", *crossed)
        hidden = F.gelu(features_NW @ first.T + self._("tokenizer.first.bias"))
        second, bias = self._("tokenizer.second.weight"), self._("tokenizer.second.bias")
        tokens = (hidden @ second.T + bias).view(len(request_N), -1, self.settings.token_width)
        return self._norm("tokenizer.norm", tokens)

    def _all_interests(self, batch: RequestBatch, ns_NSD: Tensor) -> list[Tensor]:
        """2, 3. Interests of both histories, from dynamic and fixed queries."""
        settings = self.settings
        begin, middle, end = batch.history_ranges[batch.request_index].unbind(1)
        query_global = ns_NSD[:, : settings.ns_tokens_global]
        query_realtime = ns_NSD[:, settings.ns_tokens_global :]
        interests = []
        if settings.use_realtime:
            interests.append(self._interests("realtime", query_realtime, batch, middle, end))
        if settings.use_global:
            interests.append(self._interests("global_", query_global, batch, begin, middle))
        return interests

    def _block(self, name: str, x_NSD: Tensor) -> Tensor:
        """5. A block, with norms before or after its two parts."""
        interaction, ffn = f"{name}.norm_interaction", f"{name}.norm_ffn"
        if self.settings.norm_position == "post":
            x_NSD = self._norm(interaction, x_NSD + self._interaction(name, x_NSD))
            return self._norm(ffn, x_NSD + self._ffn(name, x_NSD))
        x_NSD = x_NSD + self._interaction(name, self._norm(interaction, x_NSD))
        return x_NSD + self._ffn(name, self._norm(ffn, x_NSD))

    def _heads(self, batch: RequestBatch, x_NSD: Tensor) -> Tensor:
        """6. Heads."""
        pooled = x_NSD.mean(1) if self.settings.pooling == "mean" else x_NSD.flatten(1)
        first, first_bias = self._("heads.first.weight"), self._("heads.first.bias")
        second, second_bias = self._("heads.second.weight"), self._("heads.second.bias")
        logits = []
        for task in range(len(self.spec.tasks)):
            hidden = F.gelu(pooled @ first[task] + first_bias[task])
            logits.append((hidden @ second[task] + second_bias[task]).squeeze(1))
        logits_NT = torch.stack(logits, 1)
        return (
            logits_NT + self._("heads.position")[batch.bias] if self.spec.bias_rows else logits_NT
        )

    # -- interests ---------------------------------------------------------------------------------

    def _interests(
        self, name: str, dynamic_NnD: Tensor, batch: RequestBatch, first: Tensor, last: Tensor
    ) -> Tensor:
        """[N, queries, D]: attention over the null event and events first[n] : last[n]."""
        N, D, heads, age = (
            len(first),
            self.settings.token_width,
            self.settings.attention_heads,
            self.settings.time_encoding,
        )
        lengths = (last - first).tolist()
        x_NLD, padding = [], torch.ones(N, 1 + max(lengths), dtype=torch.bool)
        time_ms = torch.full((N, 1 + max(lengths)), TIMELESS_MS)
        for n, length in enumerate(lengths):
            events = range(int(first[n]), int(last[n]))
            vectors = [self._("events.null"), *(self._event(batch, e) for e in events)]
            x_NLD.append(
                torch.cat(
                    [
                        torch.stack(vectors),
                        torch.zeros(max(lengths) - length, D, dtype=vectors[0].dtype),
                    ]
                )
            )
            padding[n, : 1 + length] = False
            time_ms[n, 1 : 1 + length] = batch.event_time_ms[events.start : events.stop]
        x = torch.stack(x_NLD)

        request_time_ms = batch.request_time_ms[batch.request_index]
        bucket_NL = age_bucket(request_time_ms[:, None], time_ms)
        with_age = x
        if age == "embedding":
            ages = self._(f"{name}.age_vector")[bucket_NL]
            with_age = torch.cat([x[:, :1], x[:, 1:] + ages[:, 1:]], 1)
        key_weight, value_weight = self._(f"{name}.key_value.weight").chunk(2)
        v_NLHd = (with_age @ value_weight.T).view(N, -1, heads, D // heads)
        k_NLHd = (with_age @ key_weight.T).view(N, -1, heads, D // heads)
        q_NnHd = self._queries(name, dynamic_NnD, batch).view(N, -1, heads, D // heads)
        if self.settings.qk_norm:
            # a key has length 1 before its age is added
            of_event = (x @ key_weight.T).view(N, -1, heads, D // heads)
            k_NLHd = _unit(of_event) + (k_NLHd - of_event)
            scale = self._(f"{name}.log_scale").exp()
            q_NnHd = _unit(q_NnHd) * scale[:, None]
        else:
            q_NnHd = q_NnHd / (D // heads) ** 0.5
        if age == "rotary":
            pairs = D // heads // 2
            q_NnHd = rotate(q_NnHd, rotary_angles(request_time_ms, pairs, x.dtype)[:, None, None])
            k_NLHd = rotate(k_NLHd, rotary_angles(time_ms, pairs, x.dtype)[:, :, None])
        scores_NHnL = torch.einsum("nihd,nlhd->nhil", q_NnHd, k_NLHd)
        if age == "bias":
            bias = torch.cat([self._(f"{name}.age_bias"), torch.zeros(1, heads, dtype=x.dtype)])
            bucket_NL = torch.cat([torch.full((N, 1), AGE_BUCKETS), bucket_NL[:, 1:]], 1)
            scores_NHnL = scores_NHnL + bias[bucket_NL].permute(0, 2, 1)[:, :, None]
        weights = scores_NHnL.masked_fill(padding[:, None, None], -torch.inf).softmax(-1)
        attended = torch.einsum("nhil,nlhd->nihd", weights, v_NLHd).flatten(2)
        return attended @ self._(f"{name}.output.weight").T + self._(f"{name}.output.bias")

    def _queries(self, name: str, dynamic_NnD: Tensor, batch: RequestBatch) -> Tensor:
        """[N, queries, D]: dynamic, then fixed queries, projected; the candidate's key is added to
        the dynamic ones."""
        N, D = len(dynamic_NnD), self.settings.token_width
        fixed_NnD = self._(f"{name}.fixed_queries").expand(N, -1, -1)
        dynamic = dynamic_NnD.shape[1] if self.settings.dynamic_queries else 0
        queries = torch.cat([dynamic_NnD[:, :dynamic], fixed_NnD], 1)
        shared = self.settings.query_projection == "shared"
        projected = [
            queries[:, i] @ self._(f"{name}.query.weight")[0 if shared else i]
            for i in range(queries.shape[1])
        ]
        if self.settings.candidate_query:
            candidates_ND = torch.stack([self._candidate(batch, n) for n in range(N)])
            keys_ND = candidates_ND @ self._(f"{name}.key_value.weight")[:D].T
            projected[:dynamic] = [query_ND + keys_ND for query_ND in projected[:dynamic]]
        return torch.stack(projected, 1)

    # -- blocks ------------------------------------------------------------------------------------

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight = self._(f"{name}.weight")
        if self.settings.norm == "rms":
            return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + self._(
            f"{name}.bias"
        )

    def _interaction(self, name: str, x_NSD: Tensor) -> Tensor:
        N, S, D = x_NSD.shape
        if self.settings.block == "rankmixer":
            assert D % S == 0, "the paper's mixing has as many heads as tokens"
            return torch.stack(
                [x_NSD[:, :, h * D // S : (h + 1) * D // S].reshape(N, D) for h in range(S)], 1
            )
        if self.settings.block == "transformer":
            return self._self_attention(f"{name}.interaction", x_NSD)
        heads, width = self.settings.mix_heads, D // self.settings.mix_heads
        out = torch.zeros_like(x_NSD)
        for m in range(heads):
            mix_token = torch.cat([x_NSD[:, s, m * width : (m + 1) * width] for s in range(S)], 1)
            inner = mix_token @ self._(f"{name}.interaction.down.weight")[m]
            inner = F.relu(inner) if self.settings.mix_activation == "relu" else F.gelu(inner)
            mixed = inner @ self._(f"{name}.interaction.up.weight")[m]
            for s in range(S):
                out[:, s, m * width : (m + 1) * width] = mixed[:, s * width : (s + 1) * width]
        return out

    def _self_attention(self, name: str, x_NSD: Tensor) -> Tensor:
        heads, width = (
            self.settings.attention_heads,
            x_NSD.shape[2] // self.settings.attention_heads,
        )
        projected = x_NSD @ self._(f"{name}.query_key_value.weight").T + self._(
            f"{name}.query_key_value.bias"
        )
        query, key, value = projected.chunk(3, 2)
        attended = []
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            weights = (query[..., own] @ key[..., own].transpose(1, 2) / width**0.5).softmax(-1)
            attended.append(weights @ value[..., own])
        return torch.cat(attended, 2) @ self._(f"{name}.output.weight").T + self._(
            f"{name}.output.bias"
        )

    def _ffn(self, name: str, x_NSD: Tensor) -> Tensor:
        settings = self.settings
        sizes = [
            sum(settings.queries("realtime")),
            sum(settings.queries("global")),
            settings.ns_tokens,
        ]
        groups = [[i] * size for i, size in enumerate(size for size in sizes if size)]
        group_of = [i for group in groups for i in group]
        out = []
        for s in range(x_NSD.shape[1]):
            group = {"shared": 0, "per_token": s, "per_group": group_of[s]}[settings.ffn]
            inner = (
                x_NSD[:, s] @ self._(f"{name}.ffn.first.weight")[group]
                + self._(f"{name}.ffn.first.bias")[group]
            )
            if settings.ffn_activation == "swiglu":
                gate, value = inner.chunk(2, 1)
                inner = gate / (1 + (-gate).exp()) * value
            else:
                inner = F.gelu(inner)
            out.append(
                inner @ self._(f"{name}.ffn.second.weight")[group]
                + self._(f"{name}.ffn.second.bias")[group]
            )
        return torch.stack(out, 1)
