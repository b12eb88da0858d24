"""A chapter of the syllabus; app.py lists them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chapter:
    """says: what one learns in it, in a few words. topics: in the order of the tabs."""

    title: str
    says: str
    topics: tuple[str, ...]
