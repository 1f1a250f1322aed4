"""One step of the model for the benchmarks: scoring or training, deduplicated or per impression.

``python -m hemix.lab.benchmarks.model_step JSON`` runs steps and prints the peak anonymous memory.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hemix.data.batch import RequestBatch
from hemix.errors import UsageError
from hemix.lab.benchmarks.common import run_module
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from hemix.lab.flops import flop_counter
from hemix.measure import PeakMemory, keep_freed_memory
from hemix.models import build_model
from hemix.models.hemix import HeMix
from hemix.models.hemix_config import HeMixConfig
from hemix.nn.time_encoding import TimeEncoding
from hemix.training.table_optimizers import RowAdam

__all__ = [
    "CHUNK",
    "Kind",
    "ModelStep",
    "Precision",
    "Scope",
    "StepCase",
    "Stopwatch",
    "peak_bytes",
]

CHUNK = 256
"""Impressions of a chunk without deduplication"""

Kind = Literal["score", "train"]
Scope = Literal["core", "whole"]
"""core: from embedded histories and features to scores or gradients; whole: from ids to scores or
updated weights
"""
Precision = Literal["fp32", "bf16"]

_INPUTS = ("user_RW", "item_IW", "context_QW", "cross_NW")


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """The work of a step."""

    kind: Kind
    scope: Scope
    load: Workload
    time_encoding: TimeEncoding = "bias"
    absorb: Literal["auto", "always", "never"] = "auto"
    """Whether key and value projections are absorbed into the queries; auto: by shape"""
    precision: Precision = "fp32"

    @classmethod
    def of(cls, kind: str, scope: str, load: Workload, **more: Any) -> StepCase:
        """Make a case from plain strings.

        Args:
            kind: score or train.
            scope: core or whole.
            load: The batch.
            more: Further fields.

        Raises:
            UsageError: ``kind`` or ``scope`` is unknown.
        """
        for field, value, known in (
            ("kind", kind, ("score", "train")),
            ("scope", scope, ("core", "whole")),
        ):
            if value not in known:
                expected = " or ".join(known)
                raise UsageError(f"bench: {field}: expected {expected}, got {value!r}", field=field)
        return cls(kind=kind, scope=scope, load=load, **more)  # type: ignore[arg-type]


class Stopwatch:
    """Adds up the seconds of its blocks and, on request, their floating-point operations."""

    def __init__(self, count_flops: bool = False) -> None:
        self.seconds, self.flops = 0.0, 0
        self._count_flops = count_flops
        self._start = 0.0
        self._counter: FlopCounterMode | None = None

    def __enter__(self) -> None:
        if self._count_flops:
            self._counter = flop_counter()
            self._counter.__enter__()  # type: ignore[no-untyped-call]
        self._start = time.perf_counter()

    def __exit__(self, *exception: Any) -> None:
        self.seconds += time.perf_counter() - self._start
        if self._counter is not None:
            self._counter.__exit__(*exception)  # type: ignore[no-untyped-call]
            self.flops += self._counter.get_total_flops()


class ModelStep:
    """A model with optimisers and a batch, ready to step.

    The time excludes what a loader would do (the copies per impression) and, in scope ``core``, the
    embedding of the inputs.
    """

    def __init__(self, case: StepCase, *, deduplicate: bool) -> None:
        """Build the model and the batch.

        Args:
            case: The work of a step.
            deduplicate: Compute each user's and request's work once; else once per impression.
        """
        self.case, self.deduplicate = case, deduplicate
        config = HeMixConfig(
            size="base", **HeMixConfig.sizes["base"], time_encoding=case.time_encoding
        )
        model = build_model(SPEC, config, seed=0).train(case.kind == "train")
        assert isinstance(model, HeMix)
        for history in (model.global_, model.realtime):
            assert history is not None
            history.absorb = case.absorb
        self.model = model
        self.batch = make_batch(case.load)
        self.optimizer = torch.optim.AdamW(model.dense_parameters(), lr=1e-3, fused=True)
        self.table_gradients = _TableGradients(model)
        self.table_optimizer = RowAdam(self.table_gradients)  # type: ignore[arg-type]

    def run(
        self, return_outputs: bool = False, stopwatch: Stopwatch | None = None
    ) -> tuple[float, dict[str, Tensor]]:
        """Run one step.

        Args:
            return_outputs: Return the logits, or the gradients of weights and cross features.
            stopwatch: Takes the time and the FLOPs.

        Returns:
            The seconds, and the outputs by name (of training only with ``return_outputs``).
        """
        stopwatch = stopwatch or Stopwatch()
        with torch.set_grad_enabled(self.case.kind == "train"):
            if self.case.kind == "score":
                logits = torch.cat([self._score(chunk, stopwatch) for chunk in self._chunks()])
                outputs = {"logits": logits}
            else:
                outputs = self._train(stopwatch, return_outputs)
        return stopwatch.seconds, outputs

    def _chunks(self) -> Iterator[RequestBatch]:
        if self.deduplicate:
            yield self.batch
            return
        for first in range(0, self.batch.candidates_count, CHUNK):
            yield self.batch.expand_per_impression(first, first + CHUNK)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.case.precision == "bf16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()

    def _score(self, chunk: RequestBatch, stopwatch: Stopwatch) -> Tensor:
        with self._autocast():
            if self.case.scope == "whole":
                with stopwatch:
                    return self.model(chunk)  # type: ignore[no-any-return]
            inputs = self.model.embed(chunk)
            events_ED = self.model.events(inputs)
            with stopwatch:
                state = self.model.encode_history(events_ED, inputs)
                return self.model.score(self.model.encode_request(state, inputs), inputs)

    def _train(self, stopwatch: Stopwatch, return_outputs: bool) -> dict[str, Tensor]:
        self.model.zero_grad(set_to_none=True)
        cross_gradients = list[Tensor]()
        for chunk in self._chunks():
            fraction = chunk.candidates_count / self.batch.candidates_count
            if self.case.scope == "whole":
                self._backward_whole(chunk, fraction, stopwatch)
            else:
                gradient = self._backward_core(chunk, fraction, stopwatch)
                if return_outputs:
                    cross_gradients.append(gradient)
        outputs = self._gradients(cross_gradients) if return_outputs else {}
        if self.case.scope == "whole":
            with stopwatch:
                self.table_gradients.merge()
                if return_outputs:
                    rows, gradients = self.table_gradients.merged
                    outputs |= {"rows": rows.clone(), "tables": gradients.clone()}
                self.optimizer.step()
                self.table_optimizer.step(1e-3)
        return outputs

    def _backward_whole(self, chunk: RequestBatch, fraction: float, stopwatch: Stopwatch) -> None:
        with stopwatch:
            with self._autocast():
                logits = self.model(chunk)
            loss = self.model.loss(logits.float(), chunk) * fraction
            loss.backward()  # type: ignore[no-untyped-call]
            self.table_gradients.add_step()

    def _backward_core(self, chunk: RequestBatch, fraction: float, stopwatch: Stopwatch) -> Tensor:
        """Backward from embedded inputs; returns the gradient of the cross features."""
        model = self.model
        with torch.no_grad():
            inputs = model.embed(chunk)
            events_ED = model.events(inputs).requires_grad_()
        leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in _INPUTS}
        inputs = dataclasses.replace(inputs, **leaves)
        with stopwatch:
            with self._autocast():
                state = model.encode_history(events_ED, inputs)
                logits = model.score(model.encode_request(state, inputs), inputs)
            loss = model.loss(logits.float(), chunk) * fraction
            loss.backward()  # type: ignore[no-untyped-call]
        gradient: Tensor = leaves["cross_NW"].grad
        return gradient

    def _gradients(self, cross_gradients: list[Tensor]) -> dict[str, Tensor]:
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.model.named_dense_parameters()
            if parameter.grad is not None
        }
        if cross_gradients:
            gradients["cross"] = torch.cat(cross_gradients)
        return gradients


class _TableGradients:
    """The rows and gradients of the embedding tables, summed over the chunks of a step.

    It replaces the tables as the source of their optimiser.
    """

    def __init__(self, model: HeMix) -> None:
        self.weight = model.tables.weight
        self._tables = model.tables
        self._steps: list[tuple[Tensor, Tensor]] = []
        self.merged: tuple[Tensor, ...] = ()
        """(rows, gradients)"""

    def add_step(self) -> None:
        """Add the gradients of the tables' last look-up."""
        rows_and_gradients = self._tables.take_step()
        assert rows_and_gradients is not None, "no gradient reached the tables"
        self._steps.append(rows_and_gradients)

    def merge(self) -> None:
        """Sum the gradients of equal rows."""
        if len(self._steps) == 1:
            self.merged = self._steps[0]
        else:
            rows, index = torch.unique(
                torch.cat([rows for rows, _ in self._steps]), return_inverse=True
            )
            gradients = torch.cat([gradient for _, gradient in self._steps])
            total = self.weight.new_zeros(rows.shape[0], self.weight.shape[1])
            self.merged = rows, total.index_add_(0, index, gradients)
        self._steps.clear()

    def take_step(self) -> tuple[Tensor, ...]:
        """Return (rows, gradients), as the tables do."""
        return self.merged


def peak_bytes(case: StepCase, *, deduplicate: bool, steps: int = 2) -> int:
    """Measure the peak anonymous memory of steps in their own process.

    Args:
        case: The work of a step.
        deduplicate: As of :class:`ModelStep`.
        steps: Number of steps.

    Returns:
        Bytes, the interpreter included.

    Raises:
        HemixError: The process failed.
    """
    content = json.dumps({**asdict(case), "deduplicate": deduplicate, "steps": steps})
    name = f"bench: a {case.kind} step in its own process"
    return int(run_module("hemix.lab.benchmarks.model_step", content, name=name))


def _main(content: dict[str, Any]) -> None:
    deduplicate, steps = content.pop("deduplicate"), content.pop("steps")
    case = StepCase(**{**content, "load": Workload(**content["load"])})
    keep_freed_memory()
    step = ModelStep(case, deduplicate=deduplicate)
    with PeakMemory(every_seconds=0.01) as memory:
        for _ in range(steps):
            step.run()
    print(memory.bytes)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
