"""Insertion: objects that a model paints into photographs, so that the photograph is the true answer."""
