"""From a pair to layers: alpha of the shadow, what brightened, and the fractional edge of the object."""
