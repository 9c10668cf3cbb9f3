"""The page on which people review candidates: database, server, agreement, votes files, page."""
