"""Sparklines: small charts inside a line of text or a cell of a table."""

from collections.abc import Sequence

from markupsafe import Markup

from qworkerd.web import texts
from qworkerd.web.axes import COUNT, finite

#: The size (pixels).
WIDTH, HEIGHT = 96, 22


def sparkline(values: Sequence[float | None], *, title: str, kind: str = "other") -> Markup:
    """Draw values as bars without axes; title names them, and is followed by the highest and the last."""
    shown = [finite(value) or 0 for value in values]
    top, width = max(shown, default=0), WIDTH / max(len(shown), 1)
    bar = max(width - 1, width / 2)
    path = "".join(
        f"M{number * width:.1f} {HEIGHT}v{-max(1.5, (HEIGHT - 1) * value / top):.1f}h{bar:.1f}V{HEIGHT}z"
        for number, value in enumerate(shown)
        if value
    )
    text = texts.charts.small(title, COUNT.text(top), COUNT.text(shown[-1])) if top else texts.charts.none(title)
    return Markup(
        '<svg class="sparkline" role="img" width="{}" height="{}" viewBox="0 0 {} {}"><title>{}</title>'
        '<path class="axis" d="M0 {}H{}"/><path class="bar c-{}" d="{}"/></svg>'
    ).format(WIDTH, HEIGHT, WIDTH, HEIGHT, text, HEIGHT - 0.5, WIDTH, kind, path)
