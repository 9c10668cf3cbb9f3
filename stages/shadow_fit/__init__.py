"""Floor, solids and sun: the geometry behind stage `shadow`."""
