"""The diagram of the tab KV caching: one new token against the keys and values of all earlier ones."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """The way of one new token through one layer."""
    most = getattr(config, "context", 0) or getattr(config, "length", 220)
    shapes = [
        box(4, 96, 88, 50, "new token", "1 row", color="d"),
        arrow((92, 121), (110, 121), (110, 44), (128, 44)),
        arrow((110, 121), (128, 121)),
        arrow((110, 121), (110, 196), (128, 196)),
        matrix(130, 26, 62, 36, "q", color="a"),
        matrix(130, 103, 62, 36, "k", color="b"),
        matrix(130, 178, 62, 36, "v", color="c"),
        group(222, 76, 172, 158, f"the cache: up to {most:,} tokens"),
        arrow((192, 121), (234, 121)),
        matrix(236, 100, 144, 46, "keys", "kept, never computed again", color="b"),
        arrow((192, 196), (234, 196)),
        matrix(236, 172, 144, 46, "values", "kept", color="c"),
        arrow((192, 44), (430, 44), (430, 96)),
        label(310, 31, "the query meets all keys"),
        arrow((380, 123), (408, 123)),
        arrow((380, 195), (440, 195), (440, 150)),
        box(410, 98, 62, 50, "attention", color="e"),
        arrow((472, 123), (486, 123)),
        box(488, 98, 50, 50, "next", "token", color="d"),
    ]
    alt = (
        "A new token computes one query, one key and one value. Key and value join the cache; the query meets all"
        " cached keys and reads the values, and the next token comes out."
    )
    return Diagram(shapes, 540, 240, alt)
