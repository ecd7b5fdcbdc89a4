"""What is mutated: every change of one place, in the order of the source, the same on each run.

The operators are mutmut's, and two that it lacks: a condition is negated, and a call or a `raise`
that stands alone is left out. Module level, class bodies and decorated functions count too.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators

# What runs never, or for the type checker alone; `len` and `isinstance` only ever crash.
SKIPPED = cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.Assert
UNTOUCHED_CALLS = ("len", "isinstance", "TypeVar")


def negated(test: cst.BaseExpression) -> cst.BaseExpression:
    inner = test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    return cst.UnaryOperation(cst.Not(), inner)


def leave_out(node: cst.Expr | cst.Raise) -> Iterable[cst.CSTNode]:
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call):
        yield cst.Pass()


Operator = tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]
OPERATORS: list[Operator] = [*mutation_operators, (cst.Expr | cst.Raise, leave_out)]


@dataclass(frozen=True)
class Mutant:
    """`source[start:end]` becomes `new`; the statement it belongs to covers `lines`."""

    path: str
    function: str
    line: int
    lines: range
    source: str
    start: int
    end: int
    new: str
    owner: tuple[int, int]

    @property
    def mutated(self) -> str:
        return self.source[: self.start] + self.new + self.source[self.end :]

    @cached_property
    def key(self) -> str:
        """Stays as it is while the function, or statement, around the change does."""
        first, last = self.owner
        before, after = self.source[first : self.start], self.source[self.end : last]
        parts = (self.path, self.function, before, self.source[self.start : self.end], after)
        return sha256("\0".join((*parts, self.new)).encode()).hexdigest()[:20]

    @cached_property
    def change(self) -> tuple[str, str]:
        """The lines taken away and the lines put in their place, each stripped and joined."""
        old, new = self.source.splitlines(), self.mutated.splitlines()
        lines = [line for line in difflib.ndiff(old, new) if line[0] in "-+"]
        was, now = ([line[2:].strip() for line in lines if line[0] == sign] for sign in "-+")
        return " ".join(was), " ".join(now)


class Finder(cst.CSTVisitor):
    """Collects the mutants of one file."""

    METADATA_DEPENDENCIES = (PositionProvider, WhitespaceInclusivePositionProvider)

    def __init__(self, path: str, source: str) -> None:
        super().__init__()
        self.path, self.source = path, source
        self.module = cst.parse_module(source)
        self.offsets = [0]
        for line in source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.scopes: list[cst.FunctionDef | cst.ClassDef] = []
        self.statements: list[cst.CSTNode] = []
        self.found: list[Mutant] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, SKIPPED) or _is_untouched(node):
            return False
        if isinstance(node, cst.BaseStatement):
            self.statements.append(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.scopes.append(node)
        if isinstance(node, cst.If | cst.While):
            self.found.append(self._mutant(node.test, negated(node.test)))
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.found += (self._mutant(node, new) for new in operator(node))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        for stack in (self.scopes, self.statements):
            if stack and stack[-1] is original_node:
                stack.pop()

    def _mutant(self, node: cst.CSTNode, new: cst.CSTNode) -> Mutant:
        start, end = self._span(node)
        names, owner = [], self.statements[0]
        for scope in self.scopes:
            names.append(scope.name.value)
            owner = scope
            if isinstance(scope, cst.FunctionDef):
                break
        if isinstance(owner, cst.ClassDef):
            owner = self.statements[-1]
        place = self.get_metadata(PositionProvider, node)
        statement = self.get_metadata(PositionProvider, self.statements[-1])
        simple = isinstance(self.statements[-1], cst.SimpleStatementLine)
        last = statement.end.line if simple else place.end.line
        lines = range(statement.start.line, last + 1)
        text = self.module.code_for_node(new)
        function = ".".join(names)
        line = place.start.line
        return Mutant(
            self.path, function, line, lines, self.source, start, end, text, self._span(owner)
        )

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        at = self.get_metadata(WhitespaceInclusivePositionProvider, node)
        ends = (self.offsets[end.line - 1] + end.column for end in (at.start, at.end))
        return next(ends), next(ends)


def _is_untouched(node: cst.CSTNode) -> bool:
    return (
        isinstance(node, cst.Call)
        and isinstance(node.func, cst.Name)
        and node.func.value in UNTOUCHED_CALLS
    )


def of_file(path: Path, root: Path) -> Iterator[Mutant]:
    """Give all that differ from the original, and from each other, as Python."""
    source = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = Finder(str(path.relative_to(root)), source)
    wrapper.visit(finder)
    seen: dict[tuple[int, int], set[str]] = {}
    for mutant in finder.found:
        known = seen.setdefault(mutant.owner, {_meaning(source, *mutant.owner)})
        grown = len(mutant.mutated) - len(source)
        meaning = _meaning(mutant.mutated, mutant.owner[0], mutant.owner[1] + grown)
        if meaning and meaning not in known:
            known.add(meaning)
            yield mutant


def _meaning(source: str, start: int, end: int) -> str:
    """Give the syntax tree of one statement, nothing if it is not legal."""
    begin = source.rindex("\n", 0, start) + 1 if "\n" in source[:start] else 0
    for before in ("", "if 1:\n"):  # the second for what is indented
        try:
            return ast.dump(ast.parse(before + source[begin:end]))
        except SyntaxError:
            continue
    return ""
