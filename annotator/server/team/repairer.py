"""The protocol of what answers clicks on masks; `stages.segmenters.repair.MaskRepair` is one."""

from typing import Protocol

from rasura.manifests.images import RGB, Mask


class MaskRepairer(Protocol):
    """What answers clicks on a picture."""

    def click(self, key: str, picture: RGB, mask: Mask, x: int, y: int, add: bool, radius: float) -> Mask:
        """Return the mask after a click at a pixel, which adds or takes away what is under it."""
        ...

    def snap(self, picture: RGB, mask: Mask, reach: float) -> Mask:
        """Return the mask with its outline on edges of the picture."""
        ...
