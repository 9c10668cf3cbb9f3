"""Networks that find objects in photographs, behind the protocol of `boxes`."""
