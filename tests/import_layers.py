"""Who may import whom, and a reader of import statements that holds it.

Imports are read from the syntax trees, so nothing is imported and an import inside a function
counts as much as one at the top. Change docs/architecture.md together with the tables below.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CORE = "at2_rag"
FOLDERS = {
    CORE: "at2_rag",
    "langchain_at2_rag": "integrations/langchain_at2_rag",
    "llama_index_at2_rag": "integrations/llama_index_at2_rag",
    "at2_rag_evals": "evals/at2_rag_evals",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Modules of the core that stand together.

    Attributes:
        lines: The modules, lowest first: one may import those of the lines before its own.
        below: The layers it may import.
    """

    lines: tuple[tuple[str, ...], ...]
    below: tuple[str, ...] = ()


LAYERS: Mapping[str, Layer] = {
    "values": Layer(
        (
            ("break_even", "errors", "sentences", "stopwatch"),
            ("calibration", "chunks", "text_units", "whole_files"),
            ("chunk_arguments", "citations", "follow_up", "protection", "retrieval_prior"),
            ("trimming",),
            ("sentence_weights",),
        )
    ),
    "leaves": Layer(
        (("fingerprint", "limits", "redundancy", "token_counting"), ("selection",)), ("values",)
    ),
    "model": Layer(
        (
            ("stage_progress", "model_folder", "gguf_conversion"),
            ("model_cache",),
            ("model_wheel",),
            ("model_hub",),
        ),
        ("values",),
    ),
    "reading": Layer(
        (
            (
                "attention",
                "lockstep",
                "model_loading",
                "span_reading",
                "text_encoder",
            ),
            ("prompt",),
            ("scoring_model",),
            ("chunk_states", "features"),
            ("int8_states", "state_groups"),
            ("state_files",),
            ("state_store",),
            ("question_pass", "answer_pass", "head_weights", "sentence_tokens"),
            ("interchange", "layerwise", "weight_lookup"),
        ),
        ("values",),
    ),
    "composition": Layer(
        (
            ("prune_request", "turns"),
            ("source_scorer",),
            ("request_scoring",),
            ("pruner",),
            ("attribution", "default_pruner"),
        ),
        ("values", "leaves", "model", "reading"),
    ),
    "training": Layer(
        (
            (
                "training",
                "training.answers",
                "training.losses",
                "training.learning_curve",
                "training.logit_probabilities",
                "training.probability_metrics",
                "training.store_size",
            ),
            (
                "training.answer_model",
                "training.examples",
                "training.fit",
                "training.head_importance",
                "training.intervals",
                "training.packed_decoding",
                "training.store",
            ),
            (
                "training.answer_decoding",
                "training.row_collection",
                "training.shared_reading",
                "training.shards",
                "training.twins",
                "training.validation",
            ),
            ("training.ablation", "training.calibration_fit"),
            ("training.sentence_fit",),
            (
                *("training.ablation_validation", "training.calibration_study"),
                *("training.collection", "training.follow_up_fit"),
            ),
            (
                "training.ablation_collection",
                "training.answer_features",
                "training.dev_figures",
                "training.removal_drops",
            ),
            ("training.gathered_ablations", "training.trainer"),
            ("training.ablation_trainer", "training.calibration_data", "training.transfer"),
        ),
        ("values", "reading"),
    ),
    "report": Layer(
        (("report", "report.page", "report.plots"), ("report.training_page",)), ("values",)
    ),
    "console": Layer(
        (("command_line", "passage_files", "result_table", "step_progress"),), ("values",)
    ),
    "commands": Layer(
        (
            ("pruner_options",),
            (
                "model_commands",
                "state_commands",
                "training.loading",
                "training.record",
                "training.results_table",
                "training.calibration_tables",
                "training.sentence_reading",
            ),
            ("training.calibration_command", "training.command"),
            ("training.cli",),
            ("cli",),
            ("__main__",),
        ),
        ("values", "leaves", "model", "reading", "composition", "training", "report", "console"),
    ),
}
ROOT_IMPORTS = {"attribution", "chunks", "errors", "head_weights", "pruner", "state_store"}
ROOT_USERS = {"at2_rag.cli"}

ADAPTERS_USE = {"", "chunks", "default_pruner", "errors", "limits", "pruner"}
EVALS_NEVER_USE = {"attention", "prompt", "cli"}

ATTENTION_INTERNALS = (
    "transformers.AttentionInterface",
    "transformers.AttentionMaskInterface",
    "transformers.cache_utils",
    "transformers.integrations",
    "transformers.masking_utils",
    "transformers.modeling_utils",
    "transformers.models",
)
NETWORK_USERS = ("at2_rag.model_hub", "at2_rag_evals.qa.generators.endpoint")
NETWORK = ("aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "urllib")
FRAMEWORKS = {
    "langchain_at2_rag": ("langchain", "langchain_core", "langchain_classic"),
    "llama_index_at2_rag": ("llama_index",),
}
FRAMEWORK_PEERS = {  # baselines of the evals that are a framework's own
    "at2_rag_evals.qa.pruners.langchain_filter": "langchain_at2_rag",
    "at2_rag_evals.qa.pruners.llama_index_optimizer": "llama_index_at2_rag",
}
HEAVY = ("torch", "transformers", "tokenizers", "tiktoken")
LIGHT_MODULES = (
    "at2_rag",
    "at2_rag.chunks",
    "at2_rag.cli",
    "at2_rag.errors",
    "at2_rag.model_commands",
    "at2_rag.model_hub",
    "at2_rag.limits",
    "at2_rag.selection",
    "at2_rag.token_counting",
    "at2_rag.training.cli",
    "at2_rag_evals.cli",
    "at2_rag_evals.qa.cli",
)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    Attributes:
        importer: The module that imports.
        name: What is imported, dotted; of `from a import b` it is `a.b`.
        place: File and line.
        at_once: Whether it runs when the importer is imported.
    """

    importer: str
    name: str
    place: str
    at_once: bool


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def read_imports(root: Path) -> dict[str, list[Import]]:
    """Return the imports of every module of the project's packages, by module."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = (package, *path.relative_to(root / folder).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            place = str(path.relative_to(root))
            found[module] = [
                Import(module, name, f"{place}:{line}", at_once)
                for name, line, at_once in _imports_in(tree, module, is_package, at_once=True)
            ]
    return found


def _imports_in(
    node: ast.AST, module: str, is_package: bool, *, at_once: bool
) -> Iterator[tuple[str, int, bool]]:
    for child in ast.iter_child_nodes(node):
        runs = at_once and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno, runs) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                up = child.level - 1 if is_package else child.level
                parents = module.split(".")[: len(module.split(".")) - up]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", child.lineno, runs) for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports_in(child, module, is_package, at_once=False)
        else:
            yield from _imports_in(child, module, is_package, at_once=runs)


def violations(root: Path) -> list[str]:
    """Return what the packages under `root` import against the rules, a sentence each."""
    imports = read_imports(root)
    wrong = [
        f"{module} has no place in the layers: give it one here and in docs/architecture.md"
        for module in imports
        if module.startswith(CORE + ".") and _layer(_inner(module)) is None
    ]
    for found in (one for of_module in imports.values() for one in of_module):
        if reason := _against(found, imports):
            wrong.append(f"{found.place}: {found.importer} imports {found.name}: {reason}")
    for module in LIGHT_MODULES:
        if way := _way_to_heavy(module, imports):
            wrong.append(f"importing {module} loads {way[-1]}: {' > '.join(way)}")
    return wrong


def _inner(module: str) -> str:
    return module.removeprefix(CORE).removeprefix(".")


def _layer(inner: str) -> tuple[str, int] | None:
    for name, layer in LAYERS.items():
        for number, line in enumerate(layer.lines):
            if inner in line:
                return name, number
    return None


def _module_of(name: str, imports: Mapping[str, list[Import]]) -> str | None:
    """The project's module that a dotted name is, or is defined in."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        if (module := ".".join(parts[:size])) in imports:
            return module
    return None


def _against(found: Import, imports: Mapping[str, list[Import]]) -> str | None:
    """Why an import is against the rules; None if it isn't."""
    package = found.importer.partition(".")[0]
    target = _module_of(found.name, imports)
    if target is None:
        return _against_outside(found, package)
    other = target.partition(".")[0]
    if package == CORE:
        return _against_core(found.importer, target)
    if other == package:
        return None
    if other != CORE:
        return f"{package} and {other} don't know of each other"
    if package == "at2_rag_evals":
        never = _inner(target) in EVALS_NEVER_USE
        return "not for the evals" if never else None
    return None if _inner(target) in ADAPTERS_USE else "adapters use the pruner's public surface"


def _against_core(importer: str, target: str) -> str | None:
    if target.partition(".")[0] != CORE:
        return "the core knows no adapter and no eval"
    if importer == CORE:
        return None if _inner(target) in ROOT_IMPORTS else "not for the package itself"
    if target == CORE:
        return None if importer in ROOT_USERS else "import from the module that defines it"
    own, other = _layer(_inner(importer)), _layer(_inner(target))
    if own is None or other is None or importer == target:
        return None
    allowed = other[1] < own[1] if own[0] == other[0] else other[0] in LAYERS[own[0]].below
    return None if allowed else f"{other[0]} is not below {own[0]}"


def _against_outside(found: Import, package: str) -> str | None:
    if is_in(found.name, ATTENTION_INTERNALS) and found.importer != "at2_rag.attention":
        return "only attention knows transformers' attention"
    network = (*NETWORK, "subprocess") if package == CORE else NETWORK
    harmless = is_in(found.name, ("urllib.parse",))
    if is_in(found.name, network) and not harmless and found.importer not in NETWORK_USERS:
        return "only model_hub, and the evals' endpoint, touch a network"
    for adapter, names in FRAMEWORKS.items():
        knows = adapter in (package, FRAMEWORK_PEERS.get(found.importer))
        if not knows and is_in(found.name, names):
            return f"only {adapter} knows this framework"
    if package == CORE and is_in(found.name, ("scipy",)) and ".training" not in found.importer:
        return "scipy is for training"
    return None


def _way_to_heavy(module: str, imports: Mapping[str, list[Import]]) -> list[str] | None:
    """The shortest chain of imports that run at once from a module to a heavy package."""
    waiting, seen = [[module]], {module}
    while waiting:
        way = waiting.pop(0)
        parts = way[-1].split(".")
        steps = [".".join(parts[:size]) for size in range(1, len(parts))]
        for found in imports.get(way[-1], []):
            if found.at_once:
                if is_in(found.name, HEAVY):
                    return [*way, found.name.partition(".")[0]]
                steps.append(_module_of(found.name, imports) or "")
        for step in steps:
            if step and step not in seen:
                seen.add(step)
                waiting.append([*way, step])
    return None
