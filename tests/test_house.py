"""The house: the walks that docs/architecture.md tells are those of the code, all texts name their subjects, and no
test reaches into the package's private names."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "airflow_provider_rayworkflow"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))

#: Words that hide the subject of a sentence, or that have to be read twice (CONTRIBUTING.md).
UNCLEAR = re.compile(
    r"\b(whoever|whomever|nobody|somebody|bears?\s+with|is\s+looked\s+for|what\s+is\s+to\s+be"
    r"|there\s+is\s+none)\b",
    re.IGNORECASE,
)


#: Tokens of Python that hold text; from Python 3.12 on, an f-string's text is a token of its own.
TEXT = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


@pytest.mark.parametrize(
    "path", PAGES + SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_text_names_its_subjects(path: Path) -> None:
    text = _comments_and_strings(path) if path.suffix == ".py" else path.read_text()
    found = [
        f"{path.relative_to(REPOSITORY)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for match in UNCLEAR.finditer(text)
    ]
    assert found == []


def _comments_and_strings(path: Path) -> str:
    """A module without its code; its text stands in the lines where it stood."""
    lines = [""] * len(path.read_text().splitlines())
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type in TEXT:
                for offset, line in enumerate(token.string.splitlines()):
                    lines[token.start[0] - 1 + offset] += f" {line.strip(' #:')}"
    return "\n".join(lines)


def _definitions(*kinds: type[ast.stmt]) -> Iterator[tuple[int, str]]:
    """The length in lines of each definition of a kind, with its place."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield lines, f"{path.relative_to(REPOSITORY)}:{getattr(node, 'name', '')}"


def test_no_file_of_the_package_is_longer_than_500_lines() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert [path for path, lines in lengths.items() if lines > 500] == []


def test_no_function_of_the_package_is_longer_than_50_lines() -> None:
    functions = _definitions(ast.FunctionDef, ast.AsyncFunctionDef)
    assert [name for lines, name in functions if lines > 50] == []


def test_no_class_of_the_package_is_longer_than_300_lines() -> None:
    assert [name for lines, name in _definitions(ast.ClassDef) if lines > 300] == []


def test_no_two_public_classes_of_the_package_have_the_same_name() -> None:
    names = [name.rpartition(":")[2] for _, name in _definitions(ast.ClassDef)]
    assert {name for name in names if names.count(name) > 1 and not name.startswith("_")} == set()


@pytest.mark.parametrize("folder", ["scheduling", "model"])
def test_the_pure_folders_ask_no_clock_no_chance_and_no_machine(folder: str) -> None:
    impure = {"time", "random", "secrets", "uuid", "os", "threading", "asyncio", "socket"}
    for path in (PACKAGE / "workflow" / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & impure, path


#: Stands at a step whose result comes to another process, so that no code names the next step.
CARRIED = re.compile("Ray carries|the storage carries")
#: Stands at a step that an earlier one has handed over: that one names it.
HANDED_OVER = re.compile(r"handed over in step (\d+)")
#: Stands at a step that a function outside of the walk calls: that one names it.
CALLED = re.compile(r"called in `([\w/.]+):([\w.]+)`")


class Step(NamedTuple):
    """One step of a walk.

    :ivar says: what stands behind it.
    """

    file: str
    function: str
    says: str


def _walks() -> dict[str, list[Step]]:
    """The walks of docs/architecture.md: a heading ``### Walk: ...``, then ``1. `file:function` ``."""
    walks: dict[str, list[Step]] = {}
    name = ""
    for line in (REPOSITORY / "docs" / "architecture.md").read_text().splitlines():
        if line.startswith("#"):
            name = line.removeprefix("### Walk: ") if line.startswith("### Walk: ") else ""
        elif name and (step := re.match(r"\d+\. `([\w/.]+):([\w.]+)`(.*)", line)):
            walks.setdefault(name, []).append(Step(step[1], step[2], step[3]))
    return walks


WALKS = _walks()


def _function(file: str, name: str) -> ast.AST:
    node: ast.AST = ast.parse((PACKAGE / file).read_text())
    for part in name.split("."):
        node = next(
            child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part
        )
    return node


def _who_names(steps: list[Step], index: int) -> tuple[str, str] | None:
    """The file and function that has to name a step; None where Ray or the storage carries the result."""
    if handed := HANDED_OVER.search(steps[index].says):
        earlier = int(handed[1]) - 1
        assert earlier < index
        return steps[earlier].file, steps[earlier].function
    if called := CALLED.search(steps[index].says):
        return called[1], called[2]
    before = steps[index - 1]
    return None if CARRIED.search(before.says) else (before.file, before.function)


@pytest.mark.parametrize(
    ("walk", "most_functions", "most_files"),
    [
        ("from `execute` to the checkpoint's key", 18, 13),
        ("from the worker to the schedule", 22, 22),
    ],
)
def test_a_walk_of_the_architecture_page_is_short_and_as_the_code_goes_it(
    walk: str, most_functions: int, most_files: int
) -> None:
    steps = WALKS[walk]
    assert len(steps) <= most_functions
    assert len({step.file for step in steps}) <= most_files
    assert sum(CARRIED.search(step.says) is not None for step in steps) <= 1
    assert sum(CALLED.search(step.says) is not None for step in steps) <= 1
    for index in range(1, len(steps)):
        if (namer := _who_names(steps, index)) is None:
            continue
        called = steps[index].function.removesuffix(".__init__").rpartition(".")[2]
        words = {
            getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(_function(*namer))
        }
        assert called in words, f"{':'.join(namer)} does not name {called}"
    for step in steps:
        _function(step.file, step.function)


# ---- one noun a thing


def _parts(name: str) -> str:
    """The words of a name in snake_case or CamelCase, in lower case, with ``_`` around each."""
    return f"_{'_'.join(re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+', name)).lower()}_"


def _glossary() -> tuple[set[str], dict[str, list[str]]]:
    """The words of docs/glossary.md, and what it says to use for each word that is in no name."""
    text = (REPOSITORY / "docs" / "glossary.md").read_text()
    words, _, refused = text.partition("## Words in no name")
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", refused, re.MULTILINE)
    return set(re.findall(r"^\| \*\*(.+?)\*\*", words, re.MULTILINE)), {
        word: re.findall(r"\*\*(.+?)\*\*", instead)
        for row, instead in rows
        for word in re.findall(r"`(\w+)`", row)
    }


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _names(path: Path) -> set[str]:
    """The names of a module and its folders, its classes and its public functions."""
    return {*path.relative_to(PACKAGE).with_suffix("").parts} | {
        node.name
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef)
        or (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
        )
    }


def _inner_names(tree: ast.Module) -> set[str]:
    """The arguments of all functions, the attributes that are set, and the fields of classes."""
    nodes = list(ast.walk(tree))
    fields = [field for node in nodes if isinstance(node, ast.ClassDef) for field in node.body]
    return (
        {node.arg for node in nodes if isinstance(node, ast.arg)}
        | {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        }
        | {
            field.target.id
            for field in fields
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
    )


def test_names_of_the_package_keep_to_the_glossary() -> None:
    words, refused = _glossary()
    assert "verdict" in refused
    assert {word for instead in refused.values() for word in instead} <= words
    found = {
        f"{path.relative_to(PACKAGE)}: {name}: say {' or '.join(instead)}, not {word}"
        for path in SOURCES
        for names, allowed in ((_names(path), ""), (_inner_names(_tree(path)), "live"))
        for name in names
        for word, instead in refused.items()
        if word != allowed and f"_{word}_" in _parts(name)
    }
    assert found == set()


def test_arguments_attributes_and_fields_are_names() -> None:
    code = """
class Taken:
    field: int

    def method(self, given, *, named, **others):
        self.kept = given.read
        local = named
"""
    assert _inner_names(ast.parse(code)) == {"self", "field", "given", "named", "others", "kept"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [("HTTPEventRun", "_http_event_run_"), ("_live_runs", "_live_runs_"), ("Live", "_live_")],
)
def test_a_name_is_read_word_by_word(name: str, parts: str) -> None:
    assert _parts(name) == parts


# ---- what tests change of the package: they give arguments instead


def test_no_test_patches_a_private_name_of_the_package() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {patched}"
        for path in TESTS
        for line, patched in _private_patches(_tree(path))
    ]
    assert found == []


def _private_patches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the text of each ``setattr`` or ``delattr`` of a private name.

    What a module imports from elsewhere may be patched; what it has got by a call, or as an argument, may be ours.
    """
    nodes = list(ast.walk(tree))
    foreign = set().union(*map(_foreign_names, nodes))
    texts = {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called not in ("setattr", "delattr"):
            continue
        target, *others = (
            texts.get(one.id, one) if isinstance(one, ast.Name) else one for one in node.args
        )
        path = _beginning(target)
        if path.startswith(f"{PACKAGE.name}."):
            is_private = "._" in path
        else:
            is_ours = not path and _root(target) not in foreign
            is_private = is_ours and bool(others) and _beginning(others[0]).startswith("_")
        if is_private:
            yield node.lineno, ast.unparse(node)


def _foreign_names(node: ast.AST) -> set[str]:
    """What an import names that is not of the package."""
    match node:
        case ast.Import(names=names):
            return {
                (one.asname or one.name).partition(".")[0]
                for one in names
                if one.name.partition(".")[0] != PACKAGE.name
            }
        case ast.ImportFrom(module=str(module), names=names):
            if module.partition(".")[0] != PACKAGE.name:
                return {one.asname or one.name for one in names}
    return set()


def _beginning(node: ast.expr) -> str:
    """The text of a string, as far as it is written down; ``""`` for anything else."""
    match node:
        case (
            ast.Constant(value=str(text))
            | ast.JoinedStr(values=[ast.Constant(value=str(text)), *_])
        ):
            return text
    return ""


def _root(node: ast.expr) -> str:
    """The first name of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [
        ('monkeypatch.setattr(module, "_LOOK_S", 0)', True),
        ('monkeypatch.setattr(module.Class, "_look", look)', True),
        ('monkeypatch.setattr(made, "_look", look)', True),
        ('patched.setattr(module, f"_{name}", 0)', True),
        ('monkeypatch.setattr(module, "__version__", "0")', True),
        ('monkeypatch.setattr("airflow_provider_rayworkflow.module._LOOK_S", 0)', True),
        ("monkeypatch.setattr(PATH, 0)", True),
        ('monkeypatch.delattr(module, "_LOOK_S")', True),
        ('setattr(module, "_LOOK_S", 0)', True),
        ('monkeypatch.setattr(module, "look", look)', False),
        ('monkeypatch.setattr(os, "_exit", end)', False),
        ('monkeypatch.setattr("other.module._private", 0)', False),
        ("monkeypatch.setattr(module, name, 0)", False),
    ],
)
def test_a_patch_of_a_private_name_is_seen(code: str, is_refused: bool) -> None:
    before = """
import os
from airflow_provider_rayworkflow import module
PATH = "airflow_provider_rayworkflow.module._LOOK_S"
"""
    assert bool(list(_private_patches(ast.parse(before + code)))) == is_refused
