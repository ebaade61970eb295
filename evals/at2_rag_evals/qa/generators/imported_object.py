"""The user's own object, given as "module:object"."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from at2_rag.errors import InputError


def import_object(path: str, *, method: str) -> Any:
    """Import an object; a class or function is called without arguments and gives it.

    The working directory is looked in, too.

    Args:
        path: "module:object".
        method: What the object must be able to do.

    Raises:
        InputError: If there is no such module or object, or it lacks the method.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise InputError(f"{path!r} names no object; pass module:object")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # whatever the user's module raises
        raise InputError(
            f"{path!r} can't be imported ({type(error).__name__}: {error}); pass module:object, "
            "the module installed or in the working directory"
        ) from error
    finally:
        sys.path.remove(here)
    if inspect.isclass(found) or inspect.isroutine(found):
        found = found()
    if not callable(getattr(found, method, None)):
        raise InputError(
            f"{path!r} is a {type(found).__name__} without the method {method!r}; pass an object "
            "that has it, or a function that returns one"
        )
    return found


def object_record(path: str, found: Any) -> dict[str, object]:
    """Return what is known of what decides an object's answers, as JSON-ready values."""
    module = sys.modules[path.partition(":")[0]]
    source = getattr(module, "__file__", None)
    return {
        "object": path,
        "type": f"{type(found).__module__}.{type(found).__qualname__}",
        "module_sha256": hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None,
    }
