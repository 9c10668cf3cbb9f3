"""The foreground mask M_fg of a registered pair: the object with its shadow, reflection and bounced light."""
