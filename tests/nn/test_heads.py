"""The funnel: products of probabilities in log space, masked and weighted losses, recalibration."""

from __future__ import annotations

import math

import pytest
import torch

from hemix.data.spec import Task
from hemix.nn.heads import Heads, log_probabilities, loss, probabilities
from tests.batches import make_spec

CLICK_ORDER = make_spec()


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_probabilities_multiply_along_the_chain() -> None:
    """p(click) = 0.2, p(order | click) = 0.5: p(order) = 0.1."""
    scores = probabilities(torch.tensor([[logit(0.2), 0.0]]), CLICK_ORDER)
    assert {k: pytest.approx(v.item(), abs=1e-7) for k, v in scores.items()} == {
        "click": 0.2,
        "order": 0.1,
        "order_given_click": 0.5,
    }


def test_a_chain_of_three() -> None:
    tasks = (Task(name="a"), Task(name="b", given=0), Task(name="c", given=1))
    spec = make_spec(tasks=tasks)
    scores = probabilities(
        torch.tensor([[logit(0.5), logit(0.4), logit(0.3)]], dtype=torch.float64), spec
    )
    assert scores["c"].item() == pytest.approx(0.06)
    assert scores["c_given_b"].item() == pytest.approx(0.3)
    _, log_not = log_probabilities(
        torch.tensor([[logit(0.5), logit(0.4), logit(0.3)]], dtype=torch.float64), spec
    )
    assert log_not[0].exp().tolist() == pytest.approx([0.5, 0.8, 0.94])


def test_logs_stay_finite_where_probabilities_round() -> None:
    logits = torch.tensor(
        [[200.0, 200.0], [-200.0, -200.0], [200.0, -200.0], [-200.0, 200.0]], requires_grad=True
    )
    yes, no = log_probabilities(logits, CLICK_ORDER)
    (yes.sum() + no.sum()).backward()
    assert torch.isfinite(yes).all() and torch.isfinite(no).all()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_negative_sampling_is_undone_exactly() -> None:
    """A third of the negatives kept: odds 3 times too high, so the logit moves by log(1/3); 0.5
    becomes 0.25.
    """
    spec = make_spec()
    shifted = type(spec)(**{**spec.__dict__, "logit_shift": (math.log(1 / 3), 0.0)})
    logits = torch.tensor([[0.0, 0.0]])
    assert probabilities(logits, shifted)["click"].item() == pytest.approx(0.25)
    assert probabilities(logits, shifted)["order"].item() == pytest.approx(0.125)
    assert probabilities(logits, shifted, undo_sampling=False)["click"].item() == pytest.approx(0.5)


def test_loss_by_hand() -> None:
    """Two rows: clicks 1 and 0; orders 0 and unknown; all logits 0, so p(click) = 1/2 and p(order)
    = 1/4.
    """
    logits, labels = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    weights = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    assert loss(logits, labels, weights, CLICK_ORDER).item() == pytest.approx(
        math.log(2) - math.log(3 / 4), abs=1e-6
    )
    conditional = loss(logits, labels, weights, CLICK_ORDER, "given_only")
    assert conditional.item() == pytest.approx(math.log(2) + math.log(2), abs=1e-6)


def test_weights_are_a_mean_per_task() -> None:
    """Weight 3 counts three times: (log 2 + 3 * -log 0.9) / 4 for the first task."""
    logits = torch.tensor([[0.0, 0.0], [logit(0.1), 0.0]])
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    value = loss(logits, torch.zeros(2, 2), weights, CLICK_ORDER).item()
    assert value == pytest.approx((math.log(2) - 3 * math.log(0.9)) / 4, abs=1e-6)


def test_rows_without_a_click_do_not_train_the_conditional() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    loss(
        logits, torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2), CLICK_ORDER, "given_only"
    ).backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].tolist() == pytest.approx([-0.5, 0.0])


def test_a_batch_of_unknown_labels_has_loss_zero_and_no_nan() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    value = loss(logits, torch.zeros(3, 2), torch.zeros(3, 2), CLICK_ORDER)
    value.backward()
    assert value.item() == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_bf16_logits_are_lost_in_fp32() -> None:
    assert (
        loss(
            torch.zeros(2, 2, dtype=torch.bfloat16),
            torch.zeros(2, 2),
            torch.ones(2, 2),
            CLICK_ORDER,
        ).dtype
        == torch.float32
    )


def test_the_position_moves_logits_by_its_row() -> None:
    heads = Heads(make_spec(bias_rows=3), inputs=4, hidden=5, dropout=0.0)
    assert heads.position is not None
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        heads.position.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]))
    assert heads(torch.ones(2, 4), torch.tensor([2, 1])).tolist() == [[3.0, 4.0], [1.0, 2.0]]
