"""What the commands share: flags that look alike, tables, and lines on the terminal."""

import argparse
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kadence import _checks


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], None], text: str, only_prints: bool = False
) -> argparse.ArgumentParser:
    """A parser of a command among `commands`, which calls `function` with the parsed flags.

    A command that only prints has done its work where nobody reads on.

    Args:
        commands: What `add_subparsers` gave; it gets the command.
        name: The word on the command line.
        function: Called with the parsed flags.
        text: What the command does, in one line, for its own help and that of the parser above it.
        only_prints: Whether it is a command that only prints.
    """
    parser = commands.add_parser(name, help=text, description=text, formatter_class=_HelpFormatter)
    parser._negative_number_matcher = re.compile(r"-[.\d]")  # or argparse takes -1e-3 and -1,2 for flags
    parser.set_defaults(command=function, only_prints=only_prints)
    return parser


def check_files(options: argparse.Namespace, *names: str) -> None:
    """Raise before anything is done if the file that a flag names cannot be written for want of its folder.

    Args:
        options: The parsed flags, those of files as `Path` or None.
        names: Flags that name a file to write, such as "png".

    Raises:
        ValueError: If a flag names a folder, or a file in a folder that does not exist.
    """
    for name in names:
        path = getattr(options, name)
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(_checks.sentence(name, "name a file in a folder that exists", str(path)))


def words(text: str) -> tuple[str, ...]:
    """The words between the commas.

    Args:
        text: Value of a flag, such as "cosine,constant". Spaces around a word are left out, and so are empty words.
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[float, ...]:
    """The numbers between the commas; for argparse.

    Args:
        text: Value of a flag, such as "1e-5,1e-4,1e-3".

    Raises:
        argparse.ArgumentTypeError: If a word is not a number.
    """
    try:
        return tuple(float(word) for word in words(text))
    except ValueError:
        rule = "must be numbers with commas between them, such as 1e-5,1e-4,1e-3"
        raise argparse.ArgumentTypeError(f"{rule}. Received: {text!r}.") from None


def console() -> Any:
    """The rich console, which takes text as it is."""
    return _checks.extra("rich.console", "cli", "The command line").Console(markup=False, emoji=False)


def rich_table(*columns: str) -> Any:
    """A rich table without rows."""
    tables = _checks.extra("rich.table", "cli", "The command line")
    box = _checks.extra("rich.box", "cli", "The command line")
    table = tables.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def write_line(text: str) -> None:
    """A result, to the standard output.

    Args:
        text: One line or several, without the line break at the end.
    """
    print(text)


def say(text: str) -> None:
    """A message, to the standard error.

    Args:
        text: One sentence or several, on one line; "kadence:" is put before it.
    """
    print(f"kadence: {text}", file=sys.stderr)


def show_warnings() -> None:
    """Let Python's warnings to users be messages of one line."""
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
        say(f"warning: {message}")


def printable(path: Path) -> str:
    """A path as text of one line that can be encoded, also where the name of the file is not UTF-8.

    Args:
        path: Any path. Bytes of its name that are not UTF-8, control characters and line breaks are shown as escapes.
    """
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    breaks = ("Cc", "Zl", "Zp")  # control characters, and what separates lines
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in breaks else c for c in text)
