"""The target of a captured triplet: how far the object's effects reach, and a fill that meets the source at the rim."""
