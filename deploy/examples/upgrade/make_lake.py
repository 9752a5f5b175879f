"""Writes the sample lake of the upgrade example with Apache Spark and Delta Lake, and Spark's own answers beside it.

How to run it: `../spark_lake.py`.
"""
from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import spark_lake as lake  # noqa: E402
from pyspark.sql import DataFrame, SparkSession, functions as F  # noqa: E402

PEOPLE, ACCOUNTS = 600, 80
VISITORS = 300  # browsers; the first TRIALS of them belong to people who sign up, the others never do
TRIALS, PAYING = 240, 30
VISITS_EACH = 3
LIKELY = 0.65  # as in transforms/score.js

FIRST_RUN = datetime(2026, 5, 4, 4, 0)
DAY = timedelta(days=1)

SCORES = """user_id string, account_id string, upgrade_score double, plan string,
    usage struct<seats_used:int, projects:int, api_calls_30d:bigint>, scored_at timestamp"""
VISIT = "visit_id string, anonymous_id string, page string, occurred_at timestamp"
SIGNUP = "signup_id string, anonymous_id string, user_id string, email string, plan string, occurred_at timestamp"

PAGES = ["/", "/pricing", "/docs", "/docs/limits", "/changelog", "/customers"]

# What the second run really changes besides the name of a column: scores that cross the line, and scores that stay below it.
CROSS, DRIFT = 12, 10


def user(number: int) -> str:
    return f"u_{number:04d}"


def account(number: int) -> str:
    return f"acc_{number:03d}"


def score_rows() -> list[tuple]:
    dice, rows = random.Random(7), []
    for number in range(1, PEOPLE + 1):
        score = round(dice.betavariate(1.5, 2.8), 4)
        score = round(score + 0.02, 4) if abs(score - LIKELY) < 0.01 else score
        usage = None if number % 150 == 0 else (dice.randint(1, 12), dice.randint(0, 9), dice.randrange(200_000))
        scored = FIRST_RUN + timedelta(microseconds=dice.randrange(60_000_000))
        rows.append((user(number), account((number - 1) % ACCOUNTS + 1), score, dice.choice(["free", "trial", "team"]), usage, scored))
    return rows


def visit_rows() -> list[tuple]:
    """Page views of browsers that nobody has signed in with. `br_…` is somebody's first browser, `mb_…` the one that they pay with later."""
    dice, rows = random.Random(9), []
    browsers = [f"br_{number:04d}" for number in range(1, VISITORS + 1)] * VISITS_EACH + [f"mb_{number:04d}" for number in range(1, PAYING + 1)]
    for index, browser in enumerate(browsers):
        at = FIRST_RUN + timedelta(minutes=5, seconds=index, microseconds=dice.randrange(1_000_000))
        rows.append((f"visit_{index + 1:05d}", browser, dice.choice(PAGES), at))
    return rows


def trial_rows() -> list[tuple]:
    dice = random.Random(10)
    return [(f"signup_{number:05d}", f"br_{number:04d}", user(number), lake.email(number), "trial",
             FIRST_RUN + timedelta(hours=2, seconds=number, microseconds=dice.randrange(1_000_000))) for number in range(1, TRIALS + 1)]


def paying_rows() -> list[tuple]:
    """Some people pay, from another browser, with their address typed in capitals."""
    return [(f"signup_{TRIALS + number:05d}", f"mb_{number:04d}", user(number), lake.email(number).upper(), "team",
             FIRST_RUN + timedelta(hours=9, seconds=number)) for number in range(1, PAYING + 1)]


def next_run(spark: SparkSession, scores: Path) -> DataFrame:
    """The model's next run: `upgrade_score` under its new name, and 22 people whose scores moved. Everything else is equal."""
    frame = lake.read(spark, scores)
    low = sorted(row["user_id"] for row in frame.where(F.col("upgrade_score") < 0.5).collect())
    cross, drift = low[4::29][:CROSS], low[13::29][:DRIFT]
    assert len(cross) == CROSS and len(drift) == DRIFT and not set(cross) & set(drift)
    here = F.col("user_id")
    score = F.when(here.isin(cross), F.round(F.col("upgrade_score") * 0.2 + 0.7, 4))
    score = score.when(here.isin(drift), F.round(F.col("upgrade_score") + 0.03, 4)).otherwise(F.col("upgrade_score"))
    return frame.select(
        "user_id", "account_id", score.alias("upgrade_likelihood_score"), "plan", "usage",
        F.when(here.isin(cross + drift), F.lit(FIRST_RUN + DAY)).otherwise(F.col("scored_at")).alias("scored_at"),
    )


def answers(spark: SparkSession, root: Path, out: Path) -> None:
    """Spark's own answers: what any reader of the tables must find."""
    before, after = (lake.read(spark, root / "upgrade_scores", version) for version in (1, 2))
    assert lake.put(before, "user_id", out / "upgrade_scores.v1.snapshot.ndjson") == PEOPLE
    pairs = before.alias("old").join(after.alias("new"), F.col("old.user_id") == F.col("new.user_id"))
    changed = pairs.where(F.col("old.upgrade_score") != F.col("new.upgrade_likelihood_score")).select("new.*")
    assert lake.put(changed, "user_id", out / "upgrade_scores.v2.changed.ndjson") == CROSS + DRIFT

    first = before.where(F.col("upgrade_score") > LIKELY).select("user_id", F.lit(1).alias("version"))
    crossed = pairs.where((F.col("new.upgrade_likelihood_score") > LIKELY) & (F.col("old.upgrade_score") <= LIKELY))
    second = crossed.select("new.user_id", F.lit(2).alias("version"))
    assert second.count() == CROSS
    print({"likely at first": first.count()})
    lake.put(first.unionByName(second), "user_id", out / "upgrade_likely.ndjson")

    signups = lake.read(spark, root / "signups", 2).select("anonymous_id", "user_id")
    visits = lake.read(spark, root / "visits", 1).join(signups, "anonymous_id").select("visit_id", "user_id", "page")
    assert lake.put(visits, "visit_id", out / "visits.of_users.ndjson") == TRIALS * VISITS_EACH + PAYING


def make(spark: SparkSession, root: Path) -> None:
    tables = {"upgrade_scores": (SCORES, score_rows), "visits": (VISIT, visit_rows), "signups": (SIGNUP, trial_rows)}
    for name, (columns, rows) in tables.items():
        lake.create(spark, root / name, columns)
        lake.write(spark.createDataFrame(rows(), columns), root / name, "append")
    lake.write(spark.createDataFrame(paying_rows(), SIGNUP), root / "signups", "append")
    lake.write(next_run(spark, root / "upgrade_scores"), root / "upgrade_scores", "overwrite", overwriteSchema="true")
    answers(spark, root, root / "expected")


if __name__ == "__main__":
    lake.run(__file__, ("upgrade_scores", "visits", "signups"), make,
             (("signups", 2), ("signups", 1), ("upgrade_scores", 2)))
