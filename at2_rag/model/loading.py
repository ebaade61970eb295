"""`LoadedModel`: a scoring model in memory, loaded from data only, complete, on a usable device."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from at2_rag.errors import InputError, ModelNotFoundError, StorageError, brief
from at2_rag.model.cache import cache_dir
from at2_rag.model.fingerprint import cached_fingerprint, model_fingerprint
from at2_rag.model.forks import ForkLock
from at2_rag.model.hub import DEFAULT_MODEL, resolve_model

_MOST_LAYERS = 10_000
_BAR_SWITCH = ForkLock()


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A scoring model in memory, with its tokenizer; neither is ever changed.

    Attributes:
        model: A transformers causal LM (or base model).
        tokenizer: Its fast tokenizer.
        folder: The folder it was loaded from; None for a model that the caller made.
    """

    model: Any
    tokenizer: Any
    folder: Path | None = field(default=None, kw_only=True)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> LoadedModel:
        """Load a scoring model.

        Args:
            name_or_folder: The default model's name, a local folder or a hub id; a `Path` is
                always a folder.
            revision: Revision of a hub id.
            device: Where to run; None for CUDA where there is one, else the CPU.
            dtype: "float32", "bfloat16", "float16" or a torch dtype; None for bfloat16 where the
                device is fast at it, else float32.

        Raises:
            ModelNotFoundError: If the model can't be found, fetched or read.
            StorageError: If a built-in model has no folder, as this user has no home.
            InputError: If `revision`, `device` or `dtype` can't be used.
        """
        if isinstance(dtype, str) and dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype is {brief(dtype)}; pass 'float32', 'bfloat16' or 'float16'")
        torch_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        folder = resolve_model(name_or_folder, revision=revision)
        model, tokenizer = load_model(folder, device=device, dtype=torch_dtype)
        loaded = cls(model, tokenizer, folder=folder)
        is_folder = folder == Path(os.path.expanduser(name_or_folder)).absolute()
        _sources[loaded] = ModelSource(
            folder if is_folder else str(name_or_folder),
            revision,
            None if device is None else str(device),
            None if dtype is None else str(dtype).removeprefix("torch."),
        )
        return loaded

    @property
    def name(self) -> str | None:
        """The name or folder in the model's config; None where it has none."""
        return self.model.base_model.config.name_or_path or None

    @property
    def fingerprint(self) -> str:
        """The fingerprint that head weights are bound to; computed once, on first use."""
        # Not a cached_property, whose lock in Python 3.11 a forked process may inherit held.
        if "_fingerprint" not in self.__dict__:
            self.__dict__["_fingerprint"] = self._computed_fingerprint()
        fingerprint: str = self.__dict__["_fingerprint"]
        return fingerprint

    def _computed_fingerprint(self) -> str:
        compute = partial(model_fingerprint, self.model.base_model, self.tokenizer)
        if self.folder is None:
            return compute()
        try:
            cache = cache_dir() / "fingerprints"
        except StorageError:  # without a home it is computed each time
            return compute()
        return cached_fingerprint(self.folder, cache, compute, dtype=self.model.dtype)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The arguments with which `LoadedModel.from_pretrained` loads a model, here or elsewhere."""

    name_or_folder: str | Path  # a folder's is absolute
    revision: str | None
    device: str | None
    dtype: str | None


_sources: WeakKeyDictionary[LoadedModel, ModelSource] = WeakKeyDictionary()


def source_of(model: LoadedModel) -> ModelSource | None:
    """Return how a model was loaded; None for a model that the caller made."""
    return _sources.get(model)


def checked_model(model: object) -> LoadedModel:
    """Return `model` if it is a `LoadedModel`; raise `InputError` if it is something else."""
    if not isinstance(model, LoadedModel):
        raise InputError(
            f"model is a {type(model).__name__}; pass LoadedModel(model, tokenizer), or use "
            "from_pretrained for a name or a folder"
        )
    return model


def load_model(
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer from a local folder, as `from_pretrained` does."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    target = _usable_device(device)
    causal_lm: Any = AutoModelForCausalLM
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        config = AutoConfig.from_pretrained(folder, **options)
        # A config may name implementations that are fetched as code. Arguments of `from_pretrained`
        # don't stand above all of its spellings.
        config._attn_implementation = config._experts_implementation = None
        layers = getattr(config, "num_hidden_layers", 0)
        if (
            isinstance(layers, int) and layers > _MOST_LAYERS
        ):  # else transformers would make them first, without an end
            raise ValueError(
                f"its config has {brief(layers)} layers, at most {_MOST_LAYERS:,} are read"
            )
        with _without_bar():
            model, report = causal_lm.from_pretrained(
                folder,
                config=config,
                dtype=dtype or preferred_dtype(target),
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the report has them
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # transformers, its validators and readers have errors of all kinds
        raise ModelNotFoundError(
            f"{folder} can't be loaded as a model: {_reason(error)}"
        ) from error
    _check_weights(model, report, folder)
    return model.to(target), tokenizer


@contextmanager
def _without_bar() -> Iterator[None]:
    """Hide transformers' progress bar, whose switch is one for the process, and set it back."""
    from transformers.utils import logging

    with _BAR_SWITCH:
        shown, logging._tqdm_active = logging._tqdm_active, False
        try:
            yield
        finally:
            logging._tqdm_active = shown


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device computes it natively and fast, else float32."""
    native = device.type == "cpu" and _cpu_has_bfloat16()
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def _cpu_has_bfloat16() -> bool:
    built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not built_in or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    # On x86 torch also supports bfloat16 with AVX-512 alone, by emulation at a third of float32's
    # speed, and with instructions for it that are half as fast as float32's on Intel's CPUs, unless
    # they have AMX (a virtual machine may hide it) (docs/lab/speed.md).
    if _has("_is_amx_tile_supported"):
        return True
    return _has("_is_avx512_bf16_supported") and not _is_intel()


def _has(name: str) -> bool:
    """Call one of torch's questions about the CPU; False where this torch doesn't have it."""
    ask = getattr(torch.cpu, name, None)
    return ask is not None and bool(ask())


def _is_intel() -> bool:
    cpu = Path("/proc/cpuinfo")
    name = cpu.read_text(errors="replace") if cpu.exists() else platform.processor()
    return "GenuineIntel" in name


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            "the folder needs custom code, which is never run; use a model whose family "
            "transformers knows"
        )
    message = "" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
    return (
        f"{message or repr(error)}; pass a folder that transformers' save_pretrained wrote "
        "(config, safetensors weights, tokenizer)"
    )


def _usable_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        usable = torch.device(device)
        torch.empty(1, device=usable)
    except Exception as error:  # torch raises whatever a value or a driver leads to
        reason = " ".join(str(error).split())[:200]
        shown = brief(str(device) if isinstance(device, torch.device) else device)
        raise InputError(
            f"device is {shown}, which can't be used here: {reason}; pass 'cpu', or None "
            "for CUDA where there is one, else the CPU"
        ) from error
    return usable


def _check_weights(model: Any, report: dict[str, Any], folder: str | Path) -> None:
    """Check that the files have every weight of the base model, in the config's shapes."""
    base = model.base_model
    name = next(name for name, module in model.named_modules() if module is base)
    lost = sorted(
        key for key in report["missing_keys"] if key.startswith(f"{name}." if name else "")
    )
    wrong = sorted(
        f"{key} has the shape {list(shape)} instead of {list(expected)}"
        for key, shape, expected in report["mismatched_keys"]
    )
    problems = [f"{key} is missing" for key in lost] + wrong
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ModelNotFoundError(
            f"{folder} can't be loaded as a model: its weights don't fit its config: "
            f"{problems[0]}{more}; restore the files or pass another folder"
        )
