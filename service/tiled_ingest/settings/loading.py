HEAD
MASK = "********"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Effective:
    """A value in force (masked if it is a secret) and where it came from."""

    name: str
    value: Any
    origin: str


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in force.

    Parameters
    ----------
    config
        A YAML file; without one, the file that `TILED_INGEST_CONFIG` names, if any.
    overrides
        What the command line set: dotted names and values (text is understood as in the environment).
    environ
        The environment; the process's own if `None`.

    Raises
    ------
    SettingsError
        With one line that names the first setting that is wrong.
    """
    return _validated(layered(config, overrides or {}, os.environ if environ is None else environ))


def sources(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Effective, ...]:
    """Return every setting in force, secrets masked, with its origin; raises as `load` does."""
    given = layered(config, overrides or {}, os.environ if environ is None else environ)
    return tuple(
        Effective(".".join(name), value, given[name].origin if name in given else DEFAULT)
        for name, value in _leaves(_validated(given), ())
    )


def _validated(given: Layer) -> Settings:
    tree: dict[str, Any] = {name: {} for (name, *rest) in GROUPS if not rest}
    for (*groups, last), entry in given.items():
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{'.'.join((*groups, last))}: unknown setting")
        place[last] = entry.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        origins = {name: entry.origin for name, entry in given.items()}
        # `from None`: pydantic's own message quotes what was given, which may be a secret.
        raise SettingsError(explained(error, origins, KNOWN, GROUPS)) from None


def _leaves(model: BaseModel, at: Name) -> Iterator[tuple[Name, Any]]:
    for key in type(model).model_fields:
        name, value = (*at, key), getattr(model, key)
        if isinstance(value, BaseModel):
            yield from _leaves(value, name)
        elif name == PROPERTIES:
            yield from (((*name, key), _shown(item)) for key, item in value.items())
        else:
            yield name, _shown(value)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return value
