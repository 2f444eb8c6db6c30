"""What a task asks of Ray at its next attempt: more than at the last one, up to a limit. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_rayworkflow.workflow.model.causes import Cause

Json = dict[str, Any]

#: What an attempt asks for, by the names of Ray's options and custom resources; memory in bytes.
Amounts = Mapping[str, float]

_OWN_OPTIONS = ("memory", "num_cpus", "num_gpus")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)")
# Ray counts in 64 bits.
_MOST = 2**63 - 1
_UNITS = {"B": 1} | {
    f"{letter}{infix}B": base**power
    for power, letter in enumerate("KMGT", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}
#: Ray counts ten-thousandths of a CPU.
_DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Escalation:
    """How a task's demands grow from attempt to attempt.

    :ivar first: what its first attempt asks for, of that which grows.
    :ivar factors: by how much the next attempt asks for more than the last one.
    :ivar limits: what no attempt asks more than; may lack some.
    :ivar on: the causes after which they grow.
    """

    first: Amounts
    factors: Amounts
    limits: Amounts
    on: tuple[Cause, ...] = (Cause.OUT_OF_MEMORY,)

    def after(self, asked: Amounts) -> dict[str, float]:
        """What the next attempt asks for.

        :param asked: what the last one asked for; empty for the first.
        """
        last = asked or self.first
        return {name: self._grown(name, last[name]) for name in self.factors}

    def _grown(self, name: str, last: float) -> float:
        limit = self.limits.get(name, math.inf)
        amount = min(last * self.factors[name], limit, _MOST)
        if name == "memory":
            return int(amount)
        if amount <= 1:
            return round(amount, _DIGITS)
        # Ray takes whole numbers only of more than one.
        return max(last, min(math.ceil(amount), limit if math.isinf(limit) else int(limit)))

    def to_json(self) -> Json:
        return {
            "first": dict(self.first),
            "factors": dict(self.factors),
            "limits": dict(self.limits),
            "on": [cause.value for cause in self.on],
        }

    @classmethod
    def from_json(cls, value: Json) -> Escalation:
        return cls(**value | {"on": tuple(map(Cause, value["on"]))})


def check_factors(factors: Any) -> dict[str, float]:
    """What was given as ``escalate``.

    :raises ValueError: for anything but a dict of names and factors from 1.
    """
    if not isinstance(factors, Mapping) or not factors:
        raise ValueError(
            f'escalate must be factors by name, {{"memory": 2.0}}, not {factors!r:.100}.'
        )
    for name, factor in factors.items():
        if not isinstance(name, str) or not _is_number(factor) or factor < 1:
            raise ValueError(
                f"escalate must be factors from 1 on by the names of resources, not {name!r:.80}: "
                f"{factor!r:.80}."
            )
    return {name: float(factor) for name, factor in factors.items()}


def check_limits(limits: Any) -> dict[str, float]:
    """What was given as ``limit``; memory in bytes.

    :raises ValueError: for anything but a dict of names and amounts.
    """
    if not isinstance(limits, Mapping):
        raise ValueError(
            f'limit must be amounts by name, {{"memory": "64GiB"}}, not {limits!r:.100}.'
        )
    return {str(name): _amount(name, given) for name, given in limits.items()}


def _amount(name: Any, given: Any) -> float:
    if name == "memory" and isinstance(given, str):
        return size_of("limit of memory", given)
    if not _is_number(given) or given <= 0:
        raise ValueError(f"limit of {name!r:.80} must be a number above 0, not {given!r:.80}.")
    return float(given)


def size_of(option: str, text: str) -> int:
    """How many bytes a size such as ``"64GiB"`` is.

    :raises ValueError: when it is none; it names the option.
    """
    size = _SIZE.fullmatch(text.strip())
    if size is None:
        raise ValueError(
            f'{option} must be bytes, or a size such as "64GiB" or "500MB", not {text!r:.80}.'
        )
    if math.isfinite(found := float(size[1]) * _UNITS[size[2]]):
        return int(found)
    raise ValueError(f"{option} is too large: {text!r:.80}.")


def check_causes(causes: Any) -> tuple[Cause, ...]:
    """What was given as ``escalate_on``.

    :raises ValueError: for anything but the names of causes.
    """
    valid = [cause.value for cause in Cause]
    named = causes if isinstance(causes, Sequence) and not isinstance(causes, str) else ()
    if not named or any(name not in valid for name in named):
        raise ValueError(f"escalate_on must be a list of {valid}, not {causes!r:.100}.")
    return tuple(map(Cause, named))


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -_MOST <= value <= _MOST


def escalation_of(task_id: str, ours: Json, rays: Json) -> Escalation | None:
    """What the options of a task say of its demands; None if they do not grow.

    :param ours: the workflow options, checked each by itself.
    :param rays: Ray's options.
    :raises ValueError: where they do not fit together.
    """
    factors, limits = ours.get("escalate"), ours.get("limit") or {}
    if factors is None:
        if limits or ours.get("escalate_on"):
            raise ValueError(f"{task_id!r} has limit or escalate_on, and no escalate.")
        return None
    if unknown := sorted(set(limits) - set(factors)):
        raise ValueError(
            f"{task_id!r} has a limit of {unknown}, and escalate is of {sorted(factors)}."
        )
    first = {name: _asked(task_id, name, rays) for name in factors}
    for name, limit in limits.items():
        if limit < first[name]:
            raise ValueError(
                f"{task_id!r} asks for {amounts_text({name: first[name]})}, and its limit is "
                f"{amounts_text({name: limit})}."
            )
    on = ours.get("escalate_on") or (Cause.OUT_OF_MEMORY,)
    return Escalation(first=first, factors=factors, limits=limits, on=on)


def _asked(task_id: str, name: str, rays: Json) -> float:
    asked = rays.get(name) if name in _OWN_OPTIONS else (rays.get("resources") or {}).get(name)
    if name == "num_cpus" and asked is None:
        return 1.0  # Ray's default
    if not asked:
        what = f"{name}=…" if name in _OWN_OPTIONS else f'resources={{"{name}": …}}'
        raise ValueError(
            f"escalate of {name!r}: task {task_id!r} asks for none. Give it {what}, as the first "
            "attempt needs it."
        )
    return float(asked)


def with_amounts(rays: Json, amounts: Sequence[tuple[str, float]]) -> Json:
    """Ray's options with other amounts in them."""
    own = {name: amount for name, amount in amounts if name in _OWN_OPTIONS}
    custom = {name: amount for name, amount in amounts if name not in _OWN_OPTIONS}
    resources = {"resources": {**(rays.get("resources") or {}), **custom}} if custom else {}
    return {**rays, **own, **resources}


def amounts_text(amounts: Amounts) -> str:
    """For people: ``memory=4 GiB, num_cpus=2``."""
    shown = (
        f"{name}={_size_text(amount) if name == 'memory' else f'{amount:g}'}"
        for name, amount in amounts.items()
    )
    return ", ".join(shown)


def _size_text(size: float) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.4g} {unit}"
    return f"{size:g} B"
