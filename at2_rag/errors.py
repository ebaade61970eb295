"""Every exception that at2_rag raises on purpose.

All of them derive from `AT2Error`, so that one `except` clause catches them; those that
stem from what the caller passed are `ValueError`s too, as Python's own functions do it.
Messages say what was wrong, the value, the limit and the fix.
"""

_MOST_SHOWN = 80


def brief(value: object) -> str:
    """Return a value as messages show it: its `repr`, cut to 80 characters; raises nothing."""
    try:
        text = repr(value)
    except Exception:  # too many digits, nested too deep, or whatever a caller's class raises
        text = object.__repr__(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


class AT2Error(Exception):
    """Base class of all errors raised by at2_rag."""


class InputError(AT2Error, ValueError):
    """Something the caller passed can't be used."""


class ChunkTypeError(InputError, TypeError):
    """A chunk is neither a string, nor a mapping with a `text`, nor a `Chunk`."""


class PromptTooLongError(InputError):
    """The prompt has more tokens than the scoring model reads."""


class DataError(InputError):
    """A line of a data file isn't a usable item; the message names the file and the line."""


class TokenCounterError(AT2Error):
    """A token counter can't be built or loaded, or can't count a text."""


class ModelError(AT2Error):
    """The scoring model can't be used."""


class ModelNotFoundError(ModelError):
    """The scoring model can't be found, fetched or read; the message says what was tried."""


class UnsupportedModelError(ModelError):
    """The model's architecture can't be captured, read independently or truncated."""


class HeadWeightsError(AT2Error):
    """A head-weights file is missing, damaged or of another format version."""


class HeadWeightsNotFoundError(HeadWeightsError):
    """No head weights are known for the scoring model."""


class HeadWeightsMismatchError(HeadWeightsError):
    """The head weights were fitted on another model, prompt template or reading mode."""


class ScoringError(AT2Error, RuntimeError):
    """The scoring model gave scores that can't be used, for example NaN."""


class PrunerBusyError(AT2Error, RuntimeError):
    """Too many asynchronous calls wait for the pruner."""


class StorageError(AT2Error):
    """What is to be kept doesn't fit on its disk, or can't be written."""
