"""The documentation runs: its Python, its `seriatim` lines, the outputs it shows, and its links."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import shlex
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import seriatim
from seriatim import fitting
from seriatim.config import Configurable
from seriatim.data import NAMED
from seriatim.models import MODELS
from seriatim.testing import CHECKS
from seriatim.training import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
SHELLS = ("console", "sh", "bash", "shell")
# README shows runs at full length. Here they are cut short, so of its outputs the words are compared, not the numbers.
SHORTENED = "README.md"
SHORTER = {
    "check": ["--only", "causality,storage"],
    "demo": ["--epochs", "1", "--no-check"],
    "report": ["--no-check"],
}
_PROMPT = re.compile(r"\$ ?(.*)")
_PLACEHOLDER = re.compile(r"[A-Z]{2,}(\.\w+)?")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


# --- reading a page -------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A block of code: its language, its text, the number of its first line, and why it is not run, if it is not."""

    language: str
    text: str
    line: int
    skipped: str = ""


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, and indented lines that call the program.

    A comment `<!-- not run: reason -->` above a block leaves it out.
    """
    lines, number, reason = text.splitlines(), 0, ""
    while number < len(lines):
        line = lines[number]
        number += 1
        if fence := re.match(r"( *)(```+|~~~+)\s*(\w*)", line):
            first, body = number, []
            while number < len(lines) and not lines[number].strip().startswith(fence[2]):
                body.append(lines[number].removeprefix(fence[1]))
                number += 1
            number += 1
            yield Block(fence[3], "\n".join(body), first + 1, reason)
        elif re.match(r" {4,}(\$ )?seriatim ", line):
            yield Block("console", f"$ {line.strip().removeprefix('$ ')}", number, reason)
        if line.strip():
            skip = re.fullmatch(r"<!-- not run: (.+) -->", line.strip())
            reason = skip[1] if skip else ""


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *(```+|~~~+).*?^ *\1", "", text, flags=re.MULTILINE | re.DOTALL)


# --- comparing outputs ----------------------------------------------------------------------------------------------


def agree(shown: str, got: str, numbers: bool = True) -> bool:
    """Say whether an output is the one shown: `...` stands for anything, blanks do not matter.

    A number with a decimal point may differ by a hundredth of it, or by one unit of its last digit shown: training on
    another machine rounds otherwise. Whole numbers are equal.
    """
    shown, got = " ".join(shown.split()), " ".join(got.split())
    pattern, values, end = "", [], 0
    tokens = _NUMBER if numbers else re.compile(rf"{_NUMBER.pattern}|\d+")
    for match in tokens.finditer(shown):
        pattern += _literal(shown[end : match.start()]) + (rf"({_NUMBER.pattern}|\d+)")
        values.append(match[0])
        end = match.end()
    found = re.fullmatch(pattern + _literal(shown[end:]), got, re.DOTALL)
    if found is None:
        return False
    return not numbers or all(_near(value, other) for value, other in zip(values, found.groups(), strict=True))


def _literal(text: str) -> str:
    return ".*?".join(re.escape(part) for part in text.split("..."))


def _near(shown: str, got: str) -> bool:
    digits = shown.partition("e")[0].partition(".")[2]
    unit = 10.0 ** -len(digits) * (10 ** int(shown.partition("e")[2]) if "e" in shown else 1)
    return abs(float(shown) - float(got)) <= max(1.001 * unit, 0.01 * abs(float(shown)))


def require(where: str, shown: str, got: str, numbers: bool = True) -> None:
    if not agree(shown, got, numbers):
        pytest.fail(f"{where}\n--- shown\n{shown}\n--- got\n{got}", pytrace=False)


# --- running Python -------------------------------------------------------------------------------------------------


def run_python(block: Block, page: str, namespace: dict[str, Any], numbers: bool = True) -> None:
    """Run a block statement by statement; after `# ->`, on its line or those below, stands what it prints or is."""
    if ">>> " in block.text:
        run_doctest(block, page, namespace)
        return
    comments = _comments(block.text)
    tree = ast.parse(block.text)
    ends = [statement.lineno for statement in tree.body[1:]] + [len(block.text.splitlines()) + 1]
    for statement, end in zip(tree.body, ends, strict=True):
        places = [n for n in range(statement.end_lineno or 0, end) if n in comments]
        shown = "\n".join(comments[n] for n in places)
        where = f"{page}, line {block.line + statement.lineno - 1}"
        ast.increment_lineno(statement, block.line - 1)
        with io.StringIO() as printed, contextlib.redirect_stdout(printed):
            try:
                value = _run(statement, page, namespace)
            except Exception as error:
                raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
            got = printed.getvalue() + ("" if value is None else repr(value))
        if places:
            require(where, shown, got, numbers)


def _run(statement: ast.stmt, page: str, namespace: dict[str, Any]) -> Any:
    if isinstance(statement, ast.Expr):
        return eval(compile(ast.Expression(statement.value), page, "eval"), namespace)
    exec(compile(ast.Module([statement], []), page, "exec"), namespace)
    return None


def _comments(source: str) -> dict[int, str]:
    """The line numbers and texts of the comments that show an output."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {
        token.start[0]: re.fullmatch(r"# -> ?(.*)", token.string) for token in tokens if token.type == tokenize.COMMENT
    }
    return {line: match[1] for line, match in found.items() if match}


def run_doctest(block: Block, page: str, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, namespace, page, page, block.line - 1)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    if runner.run(test, out=report.write, clear_globs=False).failed:
        pytest.fail(report.getvalue(), pytrace=False)
    namespace.update(test.globs)


# --- running the command line ---------------------------------------------------------------------------------------


def commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the command and the output shown of each prompt of a block."""
    lines = block.text.splitlines()
    prompted = any(_PROMPT.match(line) for line in lines)
    number = 0
    while number < len(lines):
        first = number
        command = lines[number] if not prompted else _PROMPT.sub(r"\1", lines[number])
        number += 1
        while command.endswith("\\"):
            command = command[:-1] + lines[number].strip()
            number += 1
        shown = []
        while prompted and number < len(lines) and not _PROMPT.match(lines[number]):
            shown.append(lines[number])
            number += 1
        yield block.line + first, command, "\n".join(shown)


def program(arguments: list[str]) -> tuple[int, str]:
    """Run the program in this process: its exit status and all that it printed."""
    from seriatim.cli.app import app

    with io.StringIO() as printed, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            app(arguments, prog_name="seriatim")
            status: Any = 0
        except SystemExit as stop:
            status = stop.code
        return (status if isinstance(status, int) else 0 if status is None else 1), printed.getvalue()


def run_console(block: Block, page: str, monkeypatch: pytest.MonkeyPatch, shortened: bool) -> int:
    """Run the `seriatim` lines of a block, and say how many there were; lines of other programs are passed over."""
    count = 0
    for line, command, shown in commands(block):
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            monkeypatch.setenv(name, value)
        if not words or words[0] != "seriatim" or any(_PLACEHOLDER.fullmatch(word) for word in words):
            continue
        count += 1
        arguments = words[1:] + (SHORTER.get(words[1] if len(words) > 1 else "", []) if shortened else [])
        status, got = program(arguments)
        where = f"{page}, line {line}: {command}"
        assert status == (2 if "seriatim: error:" in shown else 0), f"{where}\nexit status {status}\n{got}"
        if shown.strip():
            require(where, shown, got, numbers=not shortened)
    return count


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, in order, in one namespace and one new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SERIATIM_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    for name in seriatim.__all__:  # classes that a page imports first would be forgotten with its own
        getattr(seriatim, name)
    monkeypatch.setattr(Configurable, "classes", dict(Configurable.classes))  # a page may define models
    shortened = page.name == SHORTENED
    if shortened:
        monkeypatch.setattr(fitting, "_STEPS", 60)
        monkeypatch.setattr(fitting, "_EPOCHS", (1, 5))
    namespace: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.skipped:
            continue
        if block.language == "python":
            run_python(block, page.name, namespace, numbers=not shortened)
        elif block.language in SHELLS:
            run_console(block, page.name, monkeypatch, shortened)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_resolve(page):
    """A link within the repository leads to a file, and to a heading where it names one."""
    text = prose(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), f"{page.name}: {target} leaves the repository"
        assert file.exists(), f"{page.name}: no file for {target}"
        if heading:
            assert heading in headings(file), f"{page.name}: no heading for {target}"


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def cells(page: str) -> dict[str, list[str]]:
    """Return the rows of all tables of a page by their first cell, without its backquotes."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip().replace("\\|", "|") for cell in row[1:]] for row in rows}


def test_every_check_is_explained():
    listed = cells("checking.md")
    for name, function in CHECKS.items():
        assert listed[name] == [" ".join((function.__doc__ or "").split())]


def test_every_named_set_has_its_source_and_its_files():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name, entry in NAMED.items():
        assert f"| `{name}` | {entry.summary} | `{entry.source}` |" in text
        for file in entry.files:
            splits = "ts,valid,test" if file.endswith(".gz") else "train,valid,test"
            shown = file.replace("{split}", f"{{{splits}}}")
            binary = len(entry.event_shape) == 1
            assert f"`{shown.replace(name, 'NAME') if binary else shown.removeprefix('images/')}`" in text


def test_every_setting_of_training_is_listed_with_its_default():
    listed = cells("training.md")
    for name, field in TrainConfig.model_fields.items():
        assert listed[name][0] == str(field.default)


def test_every_model_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in MODELS)


def test_the_map_leads_to_every_page():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {page.name for page in DOCS} - set(re.findall(r"\((\S+?\.md)\)", text)) == {"index.md"}


# --- the runner itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown, got, numbers, same",
    [
        ("nats 1.25", "nats  1.254\n", True, True),
        ("nats 1.25", "nats 1.28", True, False),
        ("nats 1.25", "nats 1.27", False, True),
        ("epoch 5 ...", "epoch 5 and 3.5 more", True, True),
        ("epoch 5", "epoch 6", True, False),
        ("epoch 5", "epoch 6", False, True),
        ("a (b)", "a (c)", False, False),
        ("... 2.0", "1.0 2.05", True, True),
        ("123.456", "124.1", True, True),
        ("1e-05 is 1.0e-05", "1e-05 is 3.0e-05", True, False),
    ],
)
def test_outputs_are_compared(shown, got, numbers, same):
    assert agree(shown, got, numbers) is same


def test_a_wrong_output_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("1 + 1  # -> 3", "print(2)\n# -> 3", ">>> 1 + 1\n3\n"):
        with pytest.raises(pytest.fail.Exception):
            run_python(Block("python", text, 1), "page", {})
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_python(Block("python", "1 / 0", 1), "page", {})
    with pytest.raises(pytest.fail.Exception):
        run_console(Block("console", "$ seriatim --version\nseriatim 99", 1), "page", monkeypatch, False)
    with pytest.raises(AssertionError, match="exit status 2"):
        run_console(Block("console", "$ seriatim train nonsense.csv", 1), "page", monkeypatch, False)


def test_blocks_are_found():
    text = "# T\n```python\nx = 1\n```\n\n    seriatim models\n\n<!-- not run: why -->\n```sh\nseriatim demo\n```\n"
    found = list(blocks(text))
    assert [block.language for block in found] == ["python", "console", "sh"]
    assert [block.line for block in found] == [3, 6, 10]
    assert found[2].skipped == "why"
    assert list(commands(found[1])) == [(6, "seriatim models", "")]
    assert list(commands(Block("console", "$ seriatim a \\\n    b\nout\n$ ls", 1))) == [
        (1, "seriatim a b", "out"),
        (4, "ls", ""),
    ]
