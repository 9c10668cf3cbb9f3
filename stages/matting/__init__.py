"""Matting with a known background: the alpha of the shadow, the light that was added, the object's fractional edge."""
