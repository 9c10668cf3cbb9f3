"""What a review writes into its run while it is served: now and then, where something has changed, and at the end."""

import logging
import time

from rasura.annotator.exchange.publish import count_entries, fetch_reviews, has_own_review, publish_review
from rasura.annotator.server.review import Review

PUBLISH_S = 120.0
"""Seconds between two writings, for which others wait."""

log = logging.getLogger("rasura.review")


class Publisher:
    """Writes a review's verdicts and corrections into its run, and exchanges work with a run in a bucket."""

    def __init__(self, review: Review, seconds: float = PUBLISH_S) -> None:
        self.review, self.seconds = review, seconds
        self._entries, self._published_at = -1, -float("inf")

    def publish_if_due(self) -> None:
        """Publish, unless that was done a short time ago."""
        if time.monotonic() - self._published_at >= self.seconds:
            self.publish()

    def publish(self) -> None:
        """Publish where the log has grown; what goes wrong is tried again the next time."""
        self._published_at = time.monotonic()
        try:
            if self.review.run.local is None:
                review = self.review
                fetch_reviews(review.run, review.database, review.policy, review.check_drawing)
            entries = count_entries(self.review.database)
            if entries in (self._entries, 0) or has_own_review(self.review.run, self.review.database):
                return
            publish_review(self.review.run, self.review.database, share=self.review.run.local is None)
            self._entries = entries
        except Exception as error:  # a run that cannot be written, a database that is away
            log.warning("verdicts and corrections cannot be written into the run: %s", error)
