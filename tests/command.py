"""The `kadence` command, called as a user does."""

import re

from kadence import cli


def command(*words):
    """Exit code of the command, also where argparse ends it."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as end:
        return end.code


def one_message(capsys, *fragments, kind="error"):
    """The only message on stderr, which holds the fragments; nothing on stdout."""
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, output.err
    assert re.match(rf"kadence[ a-z-]*: {kind}: ", lines[0]), lines
    for fragment in fragments:
        assert fragment in lines[0], lines[0]
    assert output.out == ""
    return lines[0]
