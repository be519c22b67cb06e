"""What the commands share; test_cli.py and test_schedule_commands.py see the rest."""

import argparse
import warnings
from pathlib import Path

import pytest

from kadence import _terminal

pytestmark = pytest.mark.once


def test_words_and_numbers():
    assert _terminal.words(" a, b,,c ") == ("a", "b", "c")
    assert _terminal.numbers("1e-5, .5,-1") == (1e-5, 0.5, -1.0)
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be numbers with commas between them.*'1;2'"):
        _terminal.numbers("1;2")


def test_results_and_messages_go_different_ways(capsys):
    _terminal.write_line("result")
    _terminal.say("message")
    assert capsys.readouterr() == ("result\n", "kadence: message\n")


def test_warnings_of_developers_are_no_messages(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    _terminal.show_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", _terminal._show_warning)
        warnings.warn("for users", UserWarning, stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "kadence: warning: for users\n"


def test_a_name_that_is_not_text_is_printable():
    assert _terminal.printable(Path("caf\udce9.png")) == r"caf\udce9.png"
    assert _terminal.printable(Path("café.png")) == "café.png"
    assert _terminal.printable(Path("a\tb\nc d.png")) == r"a\tb\nc d.png"
    assert _terminal.printable(Path("9.41\u202fAM\u3000.png")) == "9.41\u202fAM\u3000.png", "a path that exists"


def test_a_negative_number_is_a_value():
    parser = argparse.ArgumentParser()
    _terminal.add_command(parser.add_subparsers(), "go", print, "go").add_argument("--rates", type=_terminal.numbers)
    for text, rates in (("-1e-3", (-1e-3,)), ("-.5,2", (-0.5, 2.0))):
        assert parser.parse_args(["go", "--rates", text]).rates == rates
