"""Rules of a site for single job variables: default, bounds, choices."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpc_bridge.jobs import Resources
from hpc_bridge.jobs.spec import unknown_name
from hpc_bridge.settings import RunSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_BOUNDED_NUMBERS = ("nodes", "tasks", "tasks_per_node", "cpus_per_task", "array_throttle")
_BOUNDED_COUNTS = ("gpus", "gpus_per_node")
_BOUNDED_UNITS = ("memory", "memory_per_cpu", "walltime")
BOUNDED = (*_BOUNDED_NUMBERS, *_BOUNDED_COUNTS, *_BOUNDED_UNITS)
"""Job variables that a site may give a smallest and a largest value."""
VARIABLES = (*Resources.model_fields, *RunSettings.model_fields)
"""Job variables that a site may have a rule for."""
ELSEWHERE = {
    "scheduler": "scheduler.type",
    "shared_dir": "paths.shared_dir",
    "python": "environment.python",
    "template": "environment.template",
    "api_url": "network.api_url",
    "poll_interval": "scheduler.poll_interval",
    "directives": "scheduler.add_directives",
    "setup": "environment.prologue",
}
"""Job variables that a profile sets with another field."""


class Part(BaseModel):
    """Of a profile; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Rule(Part):
    """Default and hard limits of one job variable."""

    default: Any = Field(default=None, description="Value when nobody gives one.")
    minimum: Any = Field(default=None, description="Smallest value.")
    maximum: Any = Field(default=None, description="Largest value.")
    choices: tuple[Any, ...] = Field(default=(), description="The only values. Empty: any.")
    description: str = Field(default="", description="The site's own words on the form.")


def check_rule(name: str, rule: Rule, offered: Collection[str]) -> None:
    """Raise ValueError for a rule that makes no sense; ``offered`` are the values that exist."""
    if name in ELSEWHERE:
        raise ValueError(f"job_variables.{name}: this is set with {ELSEWHERE[name]}")
    if name not in VARIABLES:
        raise ValueError(f"job_variables.{name}: {unknown_name(name, dict.fromkeys(VARIABLES))}")
    if name not in BOUNDED and (rule.minimum is not None or rule.maximum is not None):
        raise ValueError(f"job_variables.{name}: has no minimum or maximum; give choices")
    for what, value in (
        *(("default", rule.default), ("minimum", rule.minimum), ("maximum", rule.maximum)),
        *(("choices", choice) for choice in rule.choices),
    ):
        if value is not None:
            try:
                parsed(name, value)
            except ValueError as error:
                raise ValueError(f"job_variables.{name}.{what}: {error}") from None
    if rule.default is not None:
        problem = broken(name, rule, rule.default)
        if problem is not None:
            raise ValueError(f"job_variables.{name}: the default {problem}")
        if offered and rule.default not in offered:
            raise ValueError(f"job_variables.{name}: the default {rule.default!r} is not offered")
    if (
        rule.minimum is not None
        and rule.maximum is not None
        and size(name, rule.minimum) > size(name, rule.maximum)
    ):
        raise ValueError(f"job_variables.{name}: minimum {rule.minimum} is above maximum")


def parsed(name: str, value: Any) -> Any:
    """A job variable's value as its model keeps it. Raises ValueError in words."""
    model = Resources if name in Resources.model_fields else RunSettings
    try:
        return getattr(model(**{name: value}), name)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        cause = problem.get("ctx", {}).get("error")
        words = str(cause) if cause is not None else in_plain_words(problem)
        raise ValueError(words or problem["msg"]) from None


def in_plain_words(problem: ErrorDetails) -> str | None:
    """What pydantic says with words of its own, for those who write files; None for the rest."""
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "string_type" and isinstance(given, int) and not isinstance(given, bool):
        return f'{given} is not text to YAML; quote it: "{given}"'
    if kind == "string_type" and isinstance(given, bool | float):
        return f"{given!r} is not text to YAML; put it in quotes"
    if kind == "int_parsing":
        return f"{given!r} is not a whole number"
    if kind == "float_parsing":
        return f"{given!r} is not a number"
    if kind == "too_short" and context.get("min_length") == 1:
        return "holds nothing; give at least one, or leave it out"
    return None


def size(name: str, value: Any) -> int:
    """A bounded variable's value as a number: MiB, seconds, or how many."""
    known = parsed(name, value)
    return int(str(known).rpartition(":")[2]) if name in _BOUNDED_COUNTS else int(known)


def broken(name: str, rule: Rule, value: Any) -> str | None:
    """How ``value`` breaks the rule, in words that follow it; None when it does not."""
    if rule.minimum is not None and size(name, value) < size(name, rule.minimum):
        return f"{value} is below the smallest, {rule.minimum}"
    if rule.maximum is not None and size(name, value) > size(name, rule.maximum):
        return f"{value} is above the largest, {rule.maximum}"
    if rule.choices and parsed(name, value) not in [parsed(name, one) for one in rule.choices]:
        return f"{value!r} is none of {', '.join(map(str, rule.choices))}"
    return None
