"""Charts as SVG: they need no JavaScript, follow the theme of the page, and have their numbers in a table beside them.

Positions along the time are percentages, so that text is not scaled with the width of a chart. Colours are classes: see
charts.css. A period without data is drawn as one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from qworkerd.web import texts
from qworkerd.web.axes import COUNT, SECONDS, Period, Quantity, finite

#: The height of a chart, and the space for the names of marks above and for times below (pixels).
HEIGHT, ABOVE, BELOW = 200, 18, 22
#: The width of the coordinates inside; they are stretched to that of the page.
_WIDTH = 1_000
#: The part of a slot that its bar takes.
_BAR = 0.8
#: Names of marks that are nearer than this are left out, and those behind this are on the left (part of the width).
#: Their longest length (characters).
_MARK_DISTANCE, _AT_END, _MARK_LENGTH = 0.14, 0.8, 14


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one line, or of one layer of bars."""

    name: str
    #: One for each slot of the period; None if there is none.
    values: Sequence[float | None]
    #: Its colour: completed, failed, retried, cancelled, lost, waiting, running, p50, p95, p99 or other.
    kind: str = "other"


@dataclass(frozen=True, slots=True)
class Mark:
    """An event at a time, such as a deployment."""

    at: datetime
    name: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart for a page; str() of it is a figure with legend and numbers."""

    title: str
    svg: Markup
    legend: Markup
    #: The numbers in an element that can be opened.
    table: Markup

    def __html__(self) -> str:
        return Markup(
            '<figure class="chart"><figcaption>{}{}</figcaption><div class="chart-plot" data-keys="{}">{}</div>{}'
            "</figure>"
        ).format(self.title, self.legend, texts.charts.KEYS, self.svg, self.table)

    __str__ = __html__


def stacked_bars(
    period: Period, series: Sequence[Series], *, title: str, quantity: Quantity = COUNT, marks: Iterable[Mark] = ()
) -> Chart:
    """Draw values that add up, such as the ends of jobs by outcome; the first series is at the bottom."""
    layers = [[finite(value) or 0.0 for value in each.values[: period.slots]] for each in series]
    totals = [sum(values) for values in zip(*layers, strict=True)] if layers else []
    scale = _Scale(max(totals, default=0), quantity)
    bars, ground = [], [0.0] * period.slots
    for each, values in zip(series, layers, strict=True):
        tops = [below + value for below, value in zip(ground, values, strict=True)]
        bars.append(_path(each.kind, "bar", _bars(scale, ground, tops)))
        ground = tops
    return _chart(period, series, title, scale, bars, marks, is_empty=not any(totals))


def lines(
    period: Period, series: Sequence[Series], *, title: str, quantity: Quantity = SECONDS, marks: Iterable[Mark] = ()
) -> Chart:
    """Draw values over time, such as percentiles; a slot without a value interrupts its line."""
    shown = [[finite(value) for value in each.values[: period.slots]] for each in series]
    known = [value for values in shown for value in values if value is not None]
    scale = _Scale(max(known, default=0), quantity)
    paths = [_path(each.kind, "line", _line(scale, values)) for each, values in zip(series, shown, strict=True)]
    dots = [_dots(each.kind, scale, values) for each, values in zip(series, shown, strict=True)]
    return _chart(period, series, title, scale, paths, marks, dots, is_empty=not known, swatch=" stroke")


class _Scale:
    """Where a value is between the top and the bottom of the plot."""

    def __init__(self, top: float, quantity: Quantity) -> None:
        self.quantity = quantity
        self.ticks = quantity.ticks(top)
        self._top = self.ticks[-1]

    def y(self, value: float) -> float:
        return round(ABOVE + (HEIGHT - ABOVE - BELOW) * (1 - value / self._top), 1)


def _bars(scale: _Scale, bottoms: Sequence[float], tops: Sequence[float]) -> str:
    width, parts = _WIDTH / len(tops), []
    bar = f"{width * _BAR:.1f}"
    for number, (bottom, top) in enumerate(zip(bottoms, tops, strict=True)):
        if top > bottom:
            # What is not nothing is seen: at least two pixels.
            low = scale.y(bottom)
            high = min(scale.y(top), low - 2)
            parts.append(f"M{(number + (1 - _BAR) / 2) * width:.1f} {low:g}V{high:g}h{bar}V{low:g}z")
    return "".join(parts)


def _line(scale: _Scale, values: Sequence[float | None]) -> str:
    width, parts, pen = _WIDTH / len(values) if values else 0, [], False
    for number, value in enumerate(values):
        if value is not None:
            parts.append(f"{'L' if pen else 'M'}{(number + 0.5) * width:.1f} {scale.y(value):g}")
        pen = value is not None
    return "".join(parts)


def _dots(kind: str, scale: _Scale, values: Sequence[float | None]) -> Markup:
    """Return the values without neighbours, which no line shows."""
    around = [None, *values, None]
    return Markup().join(
        Markup('<circle class="dot c-{}" cx="{:.2%}" cy="{}" r="2.5"/>').format(
            kind, (number + 0.5) / len(values), scale.y(value)
        )
        for number, value in enumerate(values)
        if value is not None and around[number] is around[number + 2] is None
    )


def _path(kind: str, shape: str, data: str) -> Markup:
    return Markup('<path class="{} c-{}" d="{}"/>').format(shape, kind, data)


def _chart(
    period: Period, series: Sequence[Series], title: str, scale: _Scale, shapes: Iterable[Markup],
    marks: Iterable[Mark], dots: Iterable[Markup] = (), *, is_empty: bool, swatch: str = "",
) -> Chart:  # fmt: skip
    known = sorted((mark for mark in marks if period.slot(mark.at) is not None), key=lambda mark: (mark.at, mark.name))
    empty = Markup('<text class="chart-empty" x="50%" y="{}">{}</text>').format(
        (HEIGHT + ABOVE - BELOW) // 2, texts.charts.EMPTY
    )
    svg = Markup(
        '<svg class="chart-svg" role="img" width="100%" height="{}" data-from="{:.0f}" data-to="{:.0f}">'
        "<title>{}</title><desc>{}</desc>{}{}"
        '<svg class="chart-shapes" width="100%" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
        "{}{}{}</svg>"
    ).format(
        HEIGHT, period.begin.timestamp(), period.end.timestamp(), title,
        "; ".join([describe(period, series, scale.quantity), *_named(period, known)]),
        _numbers(scale), _times(period), HEIGHT, _WIDTH, HEIGHT, Markup().join(shapes), Markup().join(dots),
        empty if is_empty else "", _marks(period, known),
    )  # fmt: skip
    legend = Markup('<span class="chart-legend">{}</span>').format(
        Markup().join(
            Markup('<span><i class="swatch{} c-{}"></i>{}</span>').format(swatch, each.kind, each.name)
            for each in series
        )
    )
    return Chart(title, svg, legend, numbers(period, series, title, scale.quantity, known))


def _numbers(scale: _Scale) -> Markup:
    return Markup().join(
        Markup('<line class="{}" x2="100%" y1="{}" y2="{}"/><text class="chart-y" x="-6" y="{}">{}</text>').format(
            "grid" if value else "axis", y, y, y + 4, scale.quantity.label(value) if value else "0"
        )
        for value, y in ((value, scale.y(value)) for value in scale.ticks)
    )


def _times(period: Period) -> Markup:
    y = HEIGHT - BELOW
    return Markup().join(
        Markup(
            '<line class="tick" x1="{:.2%}" x2="{:.2%}" y1="{}" y2="{}"/>'
            '<text class="chart-x{}" x="{:.2%}" y="{}">{}</text>'
        ).format(x, x, y, y + 4, " day" * day + " odd" * (number % 2), x, HEIGHT - 5, text)
        for number, (x, text, day) in enumerate(period.ticks())
    )


def _marks(period: Period, marks: Sequence[Mark]) -> Markup:
    places = [period.fraction(mark.at) for mark in marks]
    return Markup().join(
        Markup('<g class="mark"><title>{}</title><line x1="{:.2%}" x2="{:.2%}" y1="{}" y2="{}"/>{}</g>').format(
            name, x, x, ABOVE - 12, HEIGHT - BELOW, _mark_name(mark.name, x, before, after)
        )
        for mark, name, x, before, after in zip(
            marks, _named(period, marks), places, [-1.0, *places], [*places[1:], 2.0], strict=False
        )
    )


def _named(period: Period, marks: Iterable[Mark]) -> list[str]:
    return [texts.charts.mark(mark.name, period.time(mark.at)) for mark in marks]


def _mark_name(name: str, x: float, before: float, after: float) -> Markup:
    """Return the name of a mark on its right, or on its left at the end of the chart, if there is room for it."""
    at_end = x > _AT_END
    if x - before < 2 * _MARK_DISTANCE if at_end else after - x < _MARK_DISTANCE:
        return Markup()
    side = Markup('class="end" dx="-4"') if at_end else Markup('dx="4"')
    return Markup('<text x="{:.2%}" {} y="11">{}</text>').format(x, side, _shortened(name))


def _shortened(name: str) -> str:
    return name if len(name) <= _MARK_LENGTH else f"{name[: _MARK_LENGTH - 1]}…"


def describe(period: Period, series: Sequence[Series], quantity: Quantity) -> str:
    """Return a chart in words: for people who do not see it."""
    parts = [texts.charts.interval(period.name(0), period.name(period.slots))]
    for each in series:
        known = [found for value in each.values if (found := finite(value)) is not None]
        if not any(known):
            parts.append(texts.charts.none(each.name))
            continue
        total = quantity.text(sum(known)) if quantity is COUNT else None
        slot = each.values.index(max(known))
        parts.append(texts.charts.highest(each.name, total, quantity.text(max(known)), period.name(slot)))
    return "; ".join(parts)


def numbers(
    period: Period, series: Sequence[Series], title: str, quantity: Quantity, marks: Sequence[Mark] = ()
) -> Markup:
    """Return the table of the numbers of a chart. The crosshair reads it, too: one row for each slot."""
    # Without end tags, which HTML does not need: a page has hundreds of rows.
    head = Markup().join(Markup("<th scope=col>{}").format(each.name) for each in series)
    rows = Markup().join(
        Markup("<tr><th scope=row>{}{}").format(
            period.name(number),
            Markup().join(
                Markup("<td>{}").format("-" if value is None else quantity.text(value))
                for value in (finite(each.values[number]) for each in series)
            ),
        )
        for number in range(period.slots)
    )
    named = Markup("<p>{}</p>").format("; ".join(_named(period, marks))) if marks else ""
    return Markup(
        '<details class="chart-numbers"><summary>{}</summary>{}<div class="scroll" tabindex="0" role="region" '
        'aria-label="{}"><table><thead><tr><th scope=col>{}{}</thead><tbody>{}</tbody></table></div></details>'
    ).format(texts.charts.NUMBERS, named, texts.charts.numbers_of(title), texts.charts.FROM, head, rows)
