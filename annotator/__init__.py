"""The page on which people judge: server, queue, agreement, page."""
