"""The shape of the library: imports point downward, importing changes nothing, everything public has an example."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seriatim

ROOT = Path(seriatim.__file__).parent

# Each level imports from the levels before it, and from its own modules where it is one package.
LEVELS: list[set[str]] = [
    {"wide", "noise", "config", "causal", "order", "distributions", "vocabulary", "structure", "controls"},
    {"heads", "context"},
    {"engine"},
    {"autoregressive"},
    {"ensemble"},
    {"model"},
    {"layers", "ending", "symbols", "reading"},
    {"nested", "independent", "channels", "columns", "models"},
    {"tasks"},
    {"data", "cards", "runs", "training", "report"},
    {"fitting", "testing"},
    {"cli"},
]
# Peers that may import each other: the ground, and what deals with files.
PEERS = (LEVELS[0], {"data", "cards", "runs", "training", "report"})
HEAVY = {"lightning", "pytorch_lightning", "matplotlib", "sklearn", "numba", "pandas", "scipy", "tensorboard"}


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name without the leading package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found[""]  # seriatim/__init__.py offers names from all levels, lazily
    return found


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Names of the library's modules that a tree imports, those for type checkers apart."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node) or (not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name[9:] for alias in node.names if alias.name.startswith("seriatim."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            module = node.module or ""
            if module == "seriatim":
                yield from (alias.name for alias in node.names if alias.name in MODULES)
            elif module.startswith("seriatim."):
                yield module[9:]
        else:
            yield from imports(node, lazy=lazy)


def level(module: str) -> int:
    top = module.split(".")[0]
    return next(index for index, names in enumerate(LEVELS) if top in names)


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def test_every_module_has_a_level():
    assert {module.split(".")[0] for module in MODULES} <= set().union(*LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    top = module.split(".")[0]
    for imported in imports(parsed(module), lazy=False):
        other = imported.split(".")[0]
        peers = any(top in group and other in group for group in PEERS)
        assert other == top or peers or level(imported) < level(module), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in {"engine", "layers", "models"}])
def test_networks_know_nothing_of_jobs(module):
    jobs = {"tasks", "training", "data", "runs", "report", "testing", "cli"}
    assert not {imported.split(".")[0] for imported in imports(parsed(module), lazy=True)} & jobs


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("models.")])
def test_models_never_import_each_other(module):
    others = {imported for imported in imports(parsed(module), lazy=True) if imported.split(".")[0] == "models"}
    assert others <= {module}


def narrows(test: ast.expr) -> bool:
    """True for what tells a type checker something: `x is not None`, `isinstance(x, C)`, `callable(x)`."""
    if isinstance(test, ast.Call):
        return ast.unparse(test.func) in {"isinstance", "callable"}
    return ast.unparse(test).endswith(" is not None")


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_guards_an_input(module):
    asserts = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Assert)]
    lines = [node.lineno for node in asserts if not narrows(node.test)]
    assert not lines, f"{module}: python -O drops the asserts of lines {lines}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_swallows_keyword_arguments(module):
    """A misspelt option must be an error: public functions and constructors take no **kwargs they do not hand on."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert node.args.kwarg.arg in used, f"{module}.{node.name} swallows **{node.args.kwarg.arg}"


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import seriatim",
        "from seriatim import AutoregressiveModel, Columns, Nested, Order, rollout",
        "import seriatim.models, seriatim.heads, seriatim.layers, seriatim.context",
    ],
)
def test_importing_is_light(code):
    output = run_python(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))")
    loaded = {name.split(".")[0] for name in json.loads(output)}
    assert not loaded & HEAVY
    if code == "import seriatim":
        assert "torch" not in loaded


def test_every_name_that_the_library_offers_is_there():
    assert {name for name in seriatim.__all__ if not hasattr(seriatim, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = seriatim.nonsense


STATE = """
import json, signal
import numpy, torch

def state():
    return {
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "validation": torch.distributions.Distribution._validate_args,
        "generator": torch.get_rng_state().sum().item(),
        "numpy": hash(numpy.random.get_state()[1].tobytes()),
        "errors": str(sorted(numpy.geterr().items())),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
    }

before = state()
"""


def test_importing_changes_no_global_state_and_prints_nothing():
    names = ", ".join(f"seriatim.{module}" for module in MODULES)
    output = run_python(f"{STATE}\nimport {names}\nprint(json.dumps([before, state()]))")
    assert output.count("\n") == 1
    before, after = json.loads(output)
    assert after == before


def is_record(node: ast.ClassDef) -> bool:
    """Exceptions, and classes that only name their fields, show themselves."""
    bases = {ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases}
    plain = bases & {"NamedTuple", "Protocol", "TypedDict", "Enum", "BaseModel", "Exception"}
    error = any(base.endswith(("Error", "Exception")) for base in bases)
    dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    return bool(plain or error or dataclass)


def definitions(module: str) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def offered(module: str) -> set[str] | None:
    """The names that a package offers in its `__all__`, or None where all its modules' names are public."""
    package = module.split(".")[0]
    if package in {"layers", "models"} or MODULES[package].name != "__init__.py":
        return None
    for node in parsed(package).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("module", MODULES)
def test_everything_has_a_docstring(module):
    assert ast.get_docstring(parsed(module)), f"{module} has no docstring"
    silent = [node.name for node in definitions(module) if not ast.get_docstring(node)]
    assert not silent, f"{module}: no docstring on {silent}"


# The commands are left out: their examples are the lines of their help.
@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] != "cli"])
def test_everything_public_has_an_example(module):
    names = offered(module)
    bare = [
        node.name
        for node in definitions(module)
        if (names is None or node.name in names)
        and ">>>" not in (ast.get_docstring(node) or "")
        and not (isinstance(node, ast.ClassDef) and is_record(node))
    ]
    assert not bare, f"{module}: no example in the docstring of {bare}"
