"""What draws the mask of an object: promptable networks, GrabCut, and how a pair prompts them."""
