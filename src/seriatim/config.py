"""Objects that remember how they were made, so that a model can be written down and made again.

A model, its head, its order and its encoder are each described by a class name and the arguments of its constructor,
nested where an argument is itself such an object. That description is `config.json` of a saved model.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self


class Configurable:
    """A class whose instances know the arguments they were constructed with.

    `config` holds plain JSON values: {"class": name, "arguments": {...}}. `from_config` makes the object again; it
    makes only classes that have been imported, so a config file can name no code of its own.

    Example:
        >>> from seriatim.heads import Categorical
        >>> Categorical(4).config
        {'class': 'Categorical', 'arguments': {'num_categories': 4}}
        >>> from_config(Categorical(4).config)
        Categorical(4)
    """

    classes: ClassVar[dict[str, type[Configurable]]] = {}
    _arguments: dict[str, Any]
    _config_name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = Configurable.classes.get(cls.__name__)
        # A class of the same name elsewhere must not take the place of one that stored models name.
        taken = known is not None and known.__module__ != cls.__module__
        cls._config_name = f"{cls.__module__}.{cls.__name__}" if taken else cls.__name__
        Configurable.classes[cls._config_name] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        if cls.__init__ is not object.__init__:
            # Partial: copying makes an empty object first; __init__ itself reports a missing argument.
            bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
            arguments = dict(list(bound.arguments.items())[1:])
            # nn.Module forbids attributes before its own __init__, and these are no parameters.
            object.__setattr__(self, "_arguments", arguments)
        else:
            object.__setattr__(self, "_arguments", {})
        return self

    @property
    def config(self) -> dict[str, Any]:
        """The class and constructor arguments as plain JSON values."""
        return {"class": self._config_name, "arguments": {k: _plain(v) for k, v in self._arguments.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.config
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # tensors and arrays
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"config: expected plain values, tensors or configurable objects, got {type(value).__name__}")


def from_config(config: Any) -> Any:
    """Make an object again from its `config`.

    Raises:
        ValueError: the config names a class that has not been imported, or arguments that the class does not take.

    Example:
        >>> from_config({"class": "Nonsense", "arguments": {}})
        Traceback (most recent call last):
        ...
        ValueError: config: expected the name of an imported class, got 'Nonsense'
    """
    if isinstance(config, list):
        return [from_config(item) for item in config]
    if not isinstance(config, dict):
        return config
    if set(config) != {"class", "arguments"}:
        return {key: from_config(item) for key, item in config.items()}
    name = config["class"]
    if name not in Configurable.classes:
        raise ValueError(f"config: expected the name of an imported class, got {name!r}")
    cls: Any = Configurable.classes[name]
    arguments = {key: from_config(item) for key, item in config["arguments"].items()}
    try:
        inspect.signature(cls.__init__).bind(None, **arguments)
    except TypeError as error:
        raise ValueError(f"config: arguments of {name}: {error}") from error
    return cls(**arguments)
