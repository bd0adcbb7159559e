"""Two forms of a method: as it was published, faults and all, or mended.

Printed numbers were made with the published form. Whatever is settable beside it is a choice that
its authors made, and stands in both forms; docs/fidelity.md lists what the forms differ in.
"""

from dataclasses import dataclass

PUBLISHED, MENDED = "published", "mended"


@dataclass(frozen=True)
class TwoForms:
    """Base of methods whose published form has known faults.

    Attributes:
        as_: `published` or `mended`; the setting `as`, which is a word of Python's own.
    """

    as_: str = PUBLISHED

    def check_form(self, owner: str) -> None:
        """Refuse any other form; the ValueError names owner and setting."""
        if self.as_ not in (PUBLISHED, MENDED):
            raise ValueError(f"{owner}: as must be {PUBLISHED} or {MENDED}, not {self.as_!r}")

    @property
    def published(self) -> bool:
        """True for the published form."""
        return self.as_ == PUBLISHED
