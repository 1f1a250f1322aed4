"""Old names of options and commands are refused with the new ones."""

from __future__ import annotations

import pytest

from hemix.cli.renamed import RENAMED_COMMANDS, RENAMED_OPTIONS
from tests.cli.commands import COMMANDS
from tests.cli.run import Command, refused


@pytest.mark.parametrize("old", RENAMED_OPTIONS)
def test_an_old_option_names_the_new_one(hemix: Command, old: str) -> None:
    new = RENAMED_OPTIONS[old]
    having = [
        name
        for name, command in COMMANDS.items()
        if any(new in parameter.opts for parameter in command.params)
    ]
    assert having
    for name in having:
        expected = f"No such option: {old}; renamed to {new}"
        assert refused(hemix(*name.split(), f"{old}=3")) == expected
        assert not any(old in parameter.opts for parameter in COMMANDS[name].params)


def test_a_command_without_the_new_option_does_not_name_it(hemix: Command) -> None:
    assert refused(hemix("doctor", "--from", "x")) == "No such option: --from"


@pytest.mark.parametrize("old", RENAMED_COMMANDS)
def test_an_old_command_names_the_new_one(hemix: Command, old: str) -> None:
    new = RENAMED_COMMANDS[old]
    assert any(name.startswith(new) for name in COMMANDS)
    line = refused(hemix(*old.split(), "--json"))
    assert line == f"No such command '{old}'; renamed to '{new}'"
