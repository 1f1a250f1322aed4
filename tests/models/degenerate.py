"""Specs with next to nothing in them: what is left when a schema has no features of a level, or
only one."""

from __future__ import annotations

from hemix.data.spec import InputSpec, LevelSpec, Task

_TABLES = {"user": 9, "item": 12, "action": 4, "tags": 7}
_NONE = LevelSpec()
_NUMBERS = LevelSpec(number_names=("x", "y"))


def _id(name: str) -> LevelSpec:
    return LevelSpec(names=(name,), tables=(name,))


def _spec(
    user: LevelSpec = _NONE,
    context: LevelSpec = _NONE,
    item: LevelSpec = _NONE,
    cross: LevelSpec = _NONE,
    event: LevelSpec = _NONE,
    event_columns: tuple[int, ...] = (),
    bias_rows: int = 0,
) -> InputSpec:
    levels = (user, context, item, cross, event)
    used = {table for level in levels for table in (*level.tables, *level.jagged_tables)}
    return InputSpec(
        tables={name: rows for name, rows in _TABLES.items() if name in used},
        user=user,
        context=context,
        item=item,
        cross=cross,
        event=event,
        event_item_columns=event_columns,
        bias_rows=bias_rows,
        tasks=(Task(name="click"),),
        logit_shift=(0.0,),
    )


DEGENERATE: dict[str, InputSpec] = {
    "nothing at all": _spec(),
    "a position alone": _spec(bias_rows=5),
    "a user id alone": _spec(user=_id("user")),
    "a context id alone": _spec(context=_id("user")),
    "an item id alone": _spec(item=_id("item")),
    "an item id that events carry": _spec(item=_id("item"), event_columns=(0,)),
    "an item id, events of an action": _spec(
        item=_id("item"), event=_id("action"), event_columns=(0,)
    ),
    "a cross id alone": _spec(cross=_id("item")),
    "an action of events alone": _spec(event=_id("action")),
    "user and item ids": _spec(
        user=_id("user"), item=_id("item"), event=_id("action"), event_columns=(0,)
    ),
    "two item ids": _spec(
        item=LevelSpec(names=("a", "b"), tables=("item", "item")), event_columns=(0, 1)
    ),
    "tags of items alone": _spec(item=LevelSpec(jagged_names=("tags",), jagged_tables=("tags",))),
    "user features, no candidate's": _spec(
        user=_id("user"), context=_id("item"), event=_id("action")
    ),
    "numbers of users alone": _spec(user=_NUMBERS),
    "numbers of requests alone": _spec(context=_NUMBERS),
    "numbers of items alone": _spec(item=_NUMBERS),
    "numbers of crosses alone": _spec(cross=_NUMBERS),
    "numbers of every level": _spec(user=_NUMBERS, context=_NUMBERS, item=_NUMBERS, cross=_NUMBERS),
    "numbers and one item id": _spec(
        user=_NUMBERS, context=_NUMBERS, item=_id("item"), event_columns=(0,)
    ),
    "a user id, numbers of items": _spec(user=_id("user"), item=_NUMBERS, event=_id("action")),
}
"""By what they have"""
