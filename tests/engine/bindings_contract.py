"""Which names of a binding a source file uses, on which generation's path, and which of them that generation lacks.

The source files are walked together with the set of generations that can reach each line. ``hasattr(config, "x")`` and
``flavour == "tensorrt-rtx"`` divide the set; everything else that is used must exist in the whole set. The type of
an expression follows from the signatures in the lists of tests/engine/bindings; parameters are typed by their names
(PARAMETERS), and one annotated Any whose attributes are read without being in that table is a fault of its own, so
that nothing goes unchecked.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

LISTS = Path(__file__).parent / "bindings"
#: The lists of the generations that engine/ and run/ support, in order of age.
TENSORRT = (
    "tensorrt_8_5", "tensorrt_8_6", "tensorrt_10_3", "tensorrt_10_16", "tensorrt_11_0", "tensorrt_11_4",
    "tensorrt_rtx_1_7",
)  # fmt: skip
RTX = "tensorrt_rtx_1_7"
#: Name of a parameter, attribute or closure variable → the class of the bindings it holds.
PARAMETERS = {
    "trt": "module",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime": "Runtime",
    "inspector": "EngineInspector",
    "error": "ParserError",
    "severity": "ILogger.Severity",
    "layer": "ILayer",
    "tensor": "ITensor",
    "shapes": "IOptimizationProfile",
    "logger": "ILogger",
    "calibrator": "IInt8Calibrator",
    "cache": "ITimingCache",
    "dtype": "DataType",
    "flag": "BuilderFlag",
    "_trt": "module",
    "_context": "IExecutionContext",
}
#: The product's own question whether a flavour is strongly typed, and the name that answers it.
STRONG, STRONG_FLAG = "is_strongly_typed", ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
#: Parameters annotated Any that hold nothing of the bindings.
OTHER = {"owners", "monitor", "event", "graph"}
#: Classes that the product derives from: their objects have the names that the derived class gives them as well.
DERIVED = {"IInt8Calibrator", "ILogger", "IProgressMonitor"}


@dataclass(frozen=True)
class Bindings:
    """One list: class → (base, attribute → type), the module under "module"."""

    name: str
    classes: Dict[str, Tuple[str, Dict[str, str]]]

    def lookup(self, owner: str, attribute: str) -> Optional[str]:
        """The type of an attribute ("" when unknown), or None when it does not exist."""
        if attribute.startswith("__"):
            return ""
        while owner in self.classes:
            base, attributes = self.classes[owner]
            if attribute in attributes:
                return attributes[attribute] or (owner if base == "enum" and attribute.isupper() else "")
            if f"{owner}.{attribute}" in self.classes:
                return f"type {owner}.{attribute}"
            if owner == "module" and attribute in self.classes:
                return f"type {attribute}"
            owner = base
        return None


def read_bindings(name: str, folder: Path = LISTS) -> Bindings:
    """Read one list."""
    classes = {}
    for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        head, _, members = line.partition(":")
        own, _, base = head.rstrip(")").partition("(")
        classes[own] = (base, {word.partition(">")[0]: word.partition(">")[2] for word in members.split()})
    return Bindings(name, classes)


@dataclass
class Findings:
    """What was checked: (generation, class, attribute), and what is wrong."""

    used: set = field(default_factory=set)
    faults: List[str] = field(default_factory=list)


class Walker:
    """Walks several modules for all generations at once.

    Args:
        sources: file → its text.
        generations: the lists.
        entries: functions that are called from elsewhere, so that every generation reaches them. A function that only
            these sources call is reached by its callers' generations.
    """

    def __init__(self, sources: Mapping[Path, str], generations: Sequence[Bindings], entries: FrozenSet[str]) -> None:
        self.tables = {table.name: table for table in generations}
        self.everything: FrozenSet[str] = frozenset(self.tables)
        self.trees = {path: ast.parse(text) for path, text in sources.items()}
        nodes = [node for tree in self.trees.values() for node in ast.walk(tree)]
        self.functions = {
            node.name: node for tree in self.trees.values() for node in tree.body if isinstance(node, ast.FunctionDef)
        }
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and is_name(node.func)}
        self.reached = {
            name: frozenset() if name in called and name not in entries else self.everything for name in self.functions
        }
        self.own_names = {
            node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            and is_name(node.value, "self")
        }  # fmt: skip
        self.returned: Dict[str, str] = {}
        self.findings = Findings()
        self.path = Path()

    def walk(self) -> Findings:
        """Walk until no function is reached by more generations than before."""
        while True:
            before, self.findings = (dict(self.reached), dict(self.returned)), Findings()
            for path, tree in self.trees.items():
                self.path = path
                self.block(tree.body, self.everything, {}, {})
            if before == (self.reached, self.returned):
                return self.findings

    # Statements -----------------------------------------------------------------------------------------------------

    def block(self, body: Sequence[ast.stmt], live: FrozenSet[str], types: dict, tests: dict) -> FrozenSet[str]:
        """Walk statements; gives the generations that pass the end."""
        for node in body:
            live = self.statement(node, live, types, tests)
        return live

    def statement(self, node: ast.stmt, live: FrozenSet[str], types: dict, tests: dict) -> FrozenSet[str]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self.definition(node, live, types, tests)
        elif isinstance(node, ast.If):
            yes, no = self.divide(node.test, live, types, tests)
            return self.block(node.body, yes, types, tests) | self.block(node.orelse, no, types, tests)
        elif isinstance(node, (ast.For, ast.While, ast.With, ast.Try)):
            self.compound(node, live, types, tests)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.type_of(child, live, types, tests)
            if isinstance(node, ast.Assign):
                self.assign(node, live, types, tests)
            if isinstance(node, ast.Return) and node.value is not None and "" in types:
                given = self.type_of(node.value, live, types, tests)
                self.returned[types[""]] = self.returned.get(types[""], "") or given
            if isinstance(node, (ast.Return, ast.Raise, ast.Continue, ast.Break)):
                return frozenset()
        return live

    def compound(self, node: ast.stmt, live: FrozenSet[str], types: dict, tests: dict) -> None:
        if isinstance(node, ast.For):
            element = self.type_of(node.iter, live, types, tests)
            if isinstance(node.target, ast.Name):
                types[node.target.id] = element
        elif isinstance(node, ast.While):
            live, _ = self.divide(node.test, live, types, tests)
        elif isinstance(node, ast.With):
            for item in node.items:
                self.type_of(item.context_expr, live, types, tests)
        for part in ("body", "orelse", "finalbody"):
            self.block(getattr(node, part, ()), live, types, tests)
        for handler in getattr(node, "handlers", ()):
            self.block(handler.body, live, {**types, handler.name: ""} if handler.name else types, tests)

    def assign(self, node: ast.Assign, live: FrozenSet[str], types: dict, tests: dict) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                found = self.type_of(node.value, live, types, tests)
                types[target.id] = found or ("module" if target.id == "trt" else "")
                tests[target.id] = node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts):
                    if isinstance(name, ast.Name):
                        types[name.id] = self.type_of(value, live, types, tests)

    def definition(self, node: ast.stmt, live: FrozenSet[str], types: dict, tests: dict) -> None:
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                self.type_of(base, live, types, tests)
            self.block(node.body, live, dict(types), dict(tests))
            return
        inside = {**types, "": node.name}
        for parameter in node.args.args + node.args.kwonlyargs:
            inside[parameter.arg] = self.parameter(node, parameter)
        top = self.functions.get(node.name) is node
        self.block(node.body, self.reached[node.name] if top else live, inside, dict(tests))

    def parameter(self, function: ast.FunctionDef, parameter: ast.arg) -> str:
        annotation = ast.unparse(parameter.annotation) if parameter.annotation else ""
        if annotation not in ("Any", "Optional[Any]", "Sequence[Any]"):
            return ""
        read = any(isinstance(n, ast.Attribute) and is_name(n.value, parameter.arg) for n in ast.walk(function))
        if read and parameter.arg not in PARAMETERS and parameter.arg not in OTHER:
            self.fault(function, f"the parameter {parameter.arg} of {function.name} is in neither PARAMETERS nor OTHER")
        return PARAMETERS.get(parameter.arg, "")

    # Conditions -----------------------------------------------------------------------------------------------------

    def divide(
        self, test: ast.expr, live: FrozenSet[str], types: dict, tests: dict
    ) -> Tuple[FrozenSet[str], FrozenSet[str]]:
        """The generations for which a condition may be true, and those for which it may be false."""
        if isinstance(test, ast.Name) and test.id in tests:
            return self.divide(tests[test.id], live, types, {})
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yes, no = self.divide(test.operand, live, types, tests)
            return no, yes
        if isinstance(test, ast.BoolOp):
            ended, going = frozenset(), live
            for value in test.values:
                yes, no = self.divide(value, going, types, tests)
                going, out = (yes, no) if isinstance(test.op, ast.And) else (no, yes)
                ended |= out
            return (going, ended) if isinstance(test.op, ast.And) else (ended, going)
        if isinstance(test, ast.Call) and is_name(test.func, "hasattr") and isinstance(test.args[1], ast.Constant):
            return self.has(test, live, types, tests)
        if isinstance(test, ast.Call) and is_name(test.func, STRONG):
            flags = [name for name in live if self.tables[name].lookup(*STRONG_FLAG) is not None]
            return frozenset(flags), live - frozenset(flags)
        self.type_of(test, live, types, tests)
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.comparators[0], ast.Constant):
            named = test.comparators[0].value
            equal = isinstance(test.ops[0], ast.Eq)
            if named in ("tensorrt", "tensorrt-rtx") and isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
                mine = frozenset(name for name in live if (name == RTX) == (named == "tensorrt-rtx"))
                return (mine, live - mine) if equal else (live - mine, mine)
        return live, live

    def has(self, test: ast.Call, live: FrozenSet[str], types: dict, tests: dict):
        owner, wanted = self.type_of(test.args[0], live, types, tests), test.args[1].value
        if not owner:
            return live, live
        plain = owner.replace("type ", "")
        if not any(table.lookup(plain, wanted) is not None for table in self.tables.values()):
            self.fault(test, f"hasattr asks {plain} for {wanted!r}, which no generation has")
        yes = frozenset(name for name in live if self.tables[name].lookup(plain, wanted) is not None)
        return yes, live - yes

    # Expressions ----------------------------------------------------------------------------------------------------

    def type_of(self, node: ast.expr, live: FrozenSet[str], types: dict, tests: dict) -> str:
        """The bindings' class that an expression gives, "type X" for the class itself, "" for anything else."""
        if isinstance(node, ast.Name):
            return types.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self.attribute(node, live, types, tests)
        if isinstance(node, ast.Call):
            return self.call(node, live, types, tests)
        if isinstance(node, ast.IfExp):
            yes, no = self.divide(node.test, live, types, tests)
            # Both are walked, whatever the first one gives.
            given = [self.type_of(node.body, yes, types, tests), self.type_of(node.orelse, no, types, tests)]
            return given[0] or given[1]
        if isinstance(node, ast.BoolOp):
            given = []
            for value in node.values:
                given.append(self.type_of(value, live, types, tests))
                yes, no = self.divide(value, live, types, tests)
                live = yes if isinstance(node.op, ast.And) else no
            return next(filter(None, given), "")
        if isinstance(node, (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
            return self.comprehension(node, live, types, tests)
        found = [self.type_of(child, live, types, tests) for child in children_of(node)]
        return found[0] if isinstance(node, ast.Subscript) else ""

    def attribute(self, node: ast.Attribute, live: FrozenSet[str], types: dict, tests: dict) -> str:
        owner = self.type_of(node.value, live, types, tests)
        if not owner:
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            return PARAMETERS.get(node.attr, "") if own and node.attr.startswith("_") else ""
        plain, given = owner.replace("type ", ""), ""
        if plain in DERIVED and node.attr in self.own_names:
            return ""
        for name in sorted(live):
            type_here = self.tables[name].lookup(plain, node.attr)
            self.findings.used.add((name, plain, node.attr))
            if type_here is None:
                self.fault(node, f"{plain}.{node.attr} does not exist in {name}")
            given = given or type_here or ""
        return given

    def call(self, node: ast.Call, live: FrozenSet[str], types: dict, tests: dict) -> str:
        if is_name(node.func, "hasattr") and len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
            self.has(node, live, types, tests)
        for child in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.type_of(child, live, types, tests)
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in self.reached:
                self.reached[name] |= live
            if name == "import_flavour":
                return "module"
            if name in self.reached:
                return self.returned.get(name, "")
            return "" if name not in ("tuple", "list", "next", "filter") else self.inner(node, live, types, tests)
        found = self.type_of(node.func, live, types, tests)
        return found.replace("type ", "")

    def inner(self, node: ast.Call, live: FrozenSet[str], types: dict, tests: dict) -> str:
        """Of tuple(x), next(x): what x holds."""
        return next(filter(None, [self.type_of(child, live, types, tests) for child in node.args]), "")

    def comprehension(self, node: ast.expr, live: FrozenSet[str], types: dict, tests: dict) -> str:
        inside = dict(types)
        for generator in node.generators:
            element = self.type_of(generator.iter, live, inside, tests)
            for name in ast.walk(generator.target):
                if isinstance(name, ast.Name):
                    inside[name.id] = element
            for condition in generator.ifs:
                live, _ = self.divide(condition, live, inside, tests)
        if isinstance(node, ast.DictComp):
            self.type_of(node.key, live, inside, tests)
            return self.type_of(node.value, live, inside, tests)
        return self.type_of(node.elt, live, inside, tests)

    def fault(self, node: ast.AST, text: str) -> None:
        line = f"{self.path.name}:{node.lineno}: {text}"
        if line not in self.findings.faults:
            self.findings.faults.append(line)


def is_name(node: ast.expr, name: Optional[str] = None) -> bool:
    return isinstance(node, ast.Name) and name in (None, node.id)


def children_of(node: ast.AST) -> List[ast.expr]:
    return [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
