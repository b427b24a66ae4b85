"""The house rules that a machine can check: layers, names, docstrings, a light import."""

import importlib
import inspect
import os
import pkgutil
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import graphfm

ROOT = Path(graphfm.__file__).parent.parent
HEAVY = ("torch", "scanpy", "anndata", "squidpy", "pandas", "sklearn", "torch_geometric", "spatialdata", "networkx")
# folders that tools make, or that nobody publishes
PASSED_OVER = {".git", ".venv", "__pycache__", "build", "dist", "demo", "runs"}


def project_files() -> list[Path]:
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            f for f in folders if f not in PASSED_OVER and not f.endswith(("_cache", ".egg-info", "hypothesis"))
        ]
        found += [Path(folder) / name for name in names if not name.endswith((".pyc", ".tmp"))]
    return found


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the contracts stand in the source tree")
def test_imports_go_one_way():
    # in a process of its own: import-linter configures logging, and that switches off the loggers there are
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_called_utils():
    assert not [path for path in project_files() if re.fullmatch(r"_?util(s|ities)?\.py", path.name)]


def test_no_file_names_a_place_on_somebodys_machine():
    # put together here, so that this file does not hold them
    words = [rb"/" + word for word in (rb"work/", rb"tmp/dev", rb"root\b", rb"home/\w")]
    found = [
        f"{path.relative_to(ROOT)}: {word.decode()}"
        for path in project_files()
        for word in words
        if re.search(rb"(?<![\w.])" + word, path.read_bytes())
    ]
    assert not found


# docstrings

SUBPACKAGES = ("pp", "tl", "io", "genes", "datasets", "pl", "train", "models", "nn", "objectives")


def public_modules() -> list[ModuleType]:
    names = [f"graphfm.{name}" for name in SUBPACKAGES]
    for package in ("metrics", "tasks"):
        folder = importlib.import_module(f"graphfm.{package}").__path__
        names += [f"graphfm.{package}"]
        names += [f"graphfm.{package}.{m.name}" for m in pkgutil.iter_modules(folder) if not m.name.startswith("_")]
    return [importlib.import_module(name) for name in names]


def public_objects() -> dict[str, object]:
    """Functions and classes that a user is meant to reach, by name, and the classes' own public methods."""
    found = {}
    for module in public_modules():
        names = getattr(module, "__all__", None)
        for name in names if names is not None else vars(module):
            value = getattr(module, name)
            here = names is not None or getattr(value, "__module__", None) == module.__name__
            if name.startswith("_") or not here or not isinstance(value, FunctionType | type):
                continue
            found[f"{value.__module__}.{name}"] = value
            if isinstance(value, type):
                methods = {k: getattr(m, "__func__", m) for k, m in vars(value).items() if not k.startswith("_")}
                found |= {
                    f"{value.__module__}.{name}.{k}": m for k, m in methods.items() if isinstance(m, FunctionType)
                }
    return found


def described(text: str, *sections: str) -> set[str]:
    """Names in the sections of a numpydoc docstring that list them."""
    lines, names = inspect.cleandoc(text).splitlines(), set()
    for number, line in enumerate(lines[:-1]):
        if line not in sections or not lines[number + 1].startswith("---"):
            continue
        for item, after in zip(lines[number + 2 :], [*lines[number + 3 :], ""], strict=False):
            if after.startswith("---"):
                break
            if item and not item.startswith(" "):
                names |= {name.strip(" *") for name in item.split(":")[0].split(",")}
    return names


OBJECTS = public_objects()


def test_there_is_something_to_check():
    assert len(OBJECTS) > 50 and "graphfm.tl.embedding.embed" in OBJECTS and "graphfm.io.files.read" in OBJECTS
    example = "Title.\n\nParameters\n----------\na, b\n    Two.\n*c : int\n    Three.\n\nReturns\n-------\nd\n"
    assert described(example, "Parameters") == {"a", "b", "c"}


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_public_name_says_what_it_takes(name):
    value = OBJECTS[name]
    text = value.__doc__
    assert text and len(text.strip()) > 10, f"{name} has no docstring"
    if isinstance(value, type):
        return
    is_method = isinstance(getattr(importlib.import_module(value.__module__), name.split(".")[-2], None), type)
    taken = {p for p in inspect.signature(value).parameters if p not in ("self", "cls") and not p.startswith("_")}
    # a method of one or two lines explains its only arguments in its sentence, or by its class
    if is_method or not taken:
        return
    missing = taken - described(text, "Parameters")
    assert not missing, f"{name} does not describe {sorted(missing)} under Parameters"


# import


def in_a_new_process(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    script = f"import sys, graphfm\nprint([name for name in {HEAVY} if name in sys.modules])\ndir(graphfm)"
    assert in_a_new_process(script) == "[]"


def test_import_is_quick():
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_a_new_process("import graphfm")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 2


def test_every_name_of_the_table_of_contents_is_there():
    for name in graphfm.__all__:
        assert getattr(graphfm, name) is not None
    assert set(graphfm.__all__) <= set(dir(graphfm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = graphfm.nothing


def test_tools_wait_with_their_heavy_imports():
    """The graphs and the tissue builders are imported where they are used, not with the module."""
    script = "import sys, graphfm.tl, graphfm.pp, graphfm.pl, graphfm.datasets\n"
    heavy = "('scanpy', 'squidpy', 'spatialdata', 'mudata', 'networkx', 'torch_geometric', 'sklearn', 'pooch')"
    assert in_a_new_process(script + f"print([name for name in {heavy} if name in sys.modules])") == "[]"
