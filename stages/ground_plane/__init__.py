"""Where things can stand: depth, planes, classes, calm regions."""
