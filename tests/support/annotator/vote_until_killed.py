"""A process that votes on every item of a queue and prints each vote that was taken; its argument is the database."""

import sys
import time

from rasura.annotator.store.database import Database
from rasura.annotator.store.leases import lease_items
from rasura.annotator.store.policy import Policy
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.vote_log import Submission, cast_vote


def main() -> None:
    policy = Policy(votes=1, near_votes=1, most_votes=1, honeypots=0)
    database, reviewer = Database(sys.argv[1]), Reviewer(1, "a", False)
    while rows := database.write(lambda connection: lease_items(connection, policy, reviewer, 1, time.time())):
        entry = Submission(rows[0].id, "n" + rows[0].id, "yes")
        database.write(lambda connection, entry=entry: cast_vote(connection, policy, reviewer, entry, time.time()))
        print(entry.item, flush=True)


if __name__ == "__main__":
    main()
