"""What the pages show runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def code_blocks():
    """(page, line, code) of the Python blocks; `<!-- no-run: reason -->` right above a block exempts it."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"(<!-- no-run: .+? -->\n+)?^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start(2)].count("\n")
            if not match[1]:
                yield pytest.param(page, line, match[2], id=f"{page.stem}-line{line}")


@pytest.mark.parametrize(("page", "line", "code"), list(code_blocks()))
def test_code_block_runs(page, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n" * line + code, page, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own pages
