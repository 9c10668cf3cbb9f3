"""Light direction from cast shadows: a camera over a ground plane, solids for the objects, and the sun that fits."""
