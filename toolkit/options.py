"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
from pathlib import Path

import click

from toolkit.completion import complete_column, complete_model
from toolkit.spec import FP16_MATH, PRECISIONS

GATED = (*PRECISIONS, FP16_MATH)


def examples(*lines: str) -> str:
    """The end of a command's help; click leaves the line breaks of a paragraph that begins with this mark."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=Path("model"),
    envvar="TOOLKIT_MODEL",
    show_default=True,
    show_envvar=True,
    shell_complete=complete_model,
    help="Model directory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no table.")
column_option = click.option(
    "--column", shell_complete=complete_column, help="Column that holds the datasets, where there is a choice."
)
order_option = click.option(
    "--order",
    type=click.Choice(["row", "column"]),
    help="Order of the values where a dataset is stored as a flat list.",
)
path = click.Path(path_type=Path)
file = click.Path(path_type=Path, exists=True, dir_okay=False)


class Names(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Comma-separated names: `v,a,t0`."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in str(value).split(","))
        if "" in names or len(set(names)) < len(names):
            self.fail(f"{value!r} is not a list of different names. Write them as v,a,t0.", param, ctx)
        return names


class Head(click.ParamType):  # type: ignore[type-arg]
    """What the network ends in: `dense`, or `dense:64` with a layer of 64 units before it. Its value is that number."""

    name = "head"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"dense(?::([1-9]\d{0,4}))?", str(value))
        if not found:
            self.fail(f"{value!r} is not dense, or dense:N for a layer of N units before the last.", param, ctx)
        return int(found[1] or 0)


class Gate(click.ParamType):  # type: ignore[type-arg]
    """The largest relative error that passes, of one precision and statistic: `float16:max=0.01`."""

    name = "gate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str, float]:
        found = re.fullmatch(r"(\w+):(median|p99|max)=(inf|\d*\.?\d+(?:e-?\d+)?)(%?)", str(value))
        if not found or found[1] not in GATED:
            self.fail(
                f"{value!r} is not PRECISION:STATISTIC=NUMBER, like float16:max=0.01 or float16:p99=0.1%. "
                f"Precisions: {', '.join(GATED)}; statistics: median, p99, max.",
                param,
                ctx,
            )
        return found[1], found[2], float(found[3]) / (100 if found[4] else 1)
