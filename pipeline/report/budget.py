"""The size of a page, which is bounded whatever the data."""


class PageBudget:
    """The bytes that are left for pictures and their captions, so that no page grows with its data.

    Examples:
        >>> budget = PageBudget(5)
        >>> [budget.spend(part) for part in ("abc", "def", "gh")], budget.refused
        ([True, False, False], 2)
    """

    def __init__(self, size: int) -> None:
        self.size, self.left, self.refused = size, size, 0

    def spend(self, part: str) -> bool:
        """Return True where a part of the page still fits; after the first that does not, none does."""
        length = len(part.encode())
        if self.refused or length > self.left:
            self.refused += 1
            return False
        self.left -= length
        return True
