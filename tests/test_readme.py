"""What the README says can be typed in, works."""

import re
from pathlib import Path

import pytest

from graphfm import __main__ as cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_python_runs(code):
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["adata"].obsm["X_graphfm"].shape == (namespace["adata"].n_obs, 128)


def test_commands_and_files_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([\w]+)", TEXT, flags=re.MULTILINE)) <= targets
    commands = set(re.findall(r"^graphfm (\w+)", TEXT, flags=re.MULTILINE))
    assert commands and all(callable(getattr(cli, name)) for name in commands)
    for script in (ROOT / "experiments").glob("table*.py"):  # `make tables` renews each one's block
        name = script.stem.removeprefix("table_").partition("_")[0]
        assert TEXT.count(f"<!-- {name} -->") == 1, script
    for path in re.findall(r"\]\((?!http)([^)]+)\)", TEXT) + re.findall(r"`([\w/]+\.(?:md|jsonl|cff))`", TEXT):
        assert (ROOT / path).exists(), path
