"""Writes the sample lake of the churn example with Apache Spark and Delta Lake, and Spark's own answers beside it.

How to run it: `../spark_lake.py`.
"""
from __future__ import annotations

import random
import sys
from datetime import timedelta, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import spark_lake as lake  # noqa: E402
from pyspark.sql import DataFrame, SparkSession, functions as F  # noqa: E402

PEOPLE = 1000
WITHOUT_EMAIL = 40  # the table of users does not have them: their rows stay held
AT_RISK = 0.7  # as in transforms/churn.js

FIRST_RUN = datetime(2026, 4, 6, 3, 0)
DAY = timedelta(days=1)

SCORES = """user_id string, churn_risk_score double, account_tier string,
    feature_importance struct<login_recency:double, support_load:double, payment_failures:double>, encodings map<string,int>,
    support_tickets int, scored_at timestamp"""
USERS = "user_id string, email string, signed_up_at timestamp"

TIERS = ["free", "starter", "pro", "enterprise"]
COUNTRIES = ["DE", "FR", "GB", "JP", "US"]

# What the second run moves: how many people, from where to where.
FALL, RISE, DRIFT = 14, 9, 7
# What the third run really changes besides the types: scores that drift without crossing the line, and ticket counts that are no
# longer whole.
LATER_DRIFT, FRACTIONS = 20, 4


def user(number: int) -> str:
    return f"user_{number:04d}"


def without_email() -> set[int]:
    return set(random.Random(5).sample(range(1, PEOPLE + 1), WITHOUT_EMAIL))


def score_rows() -> list[tuple]:
    dice, rows = random.Random(4), []
    for number in range(1, PEOPLE + 1):
        tier = dice.choices(range(len(TIERS)), (5, 3, 2, 1))[0]
        score = round(dice.betavariate(1.6, 2.4), 4)
        # Nobody stands on the line itself, so that no reader of the numbers can disagree about it.
        score = score + 0.01 if abs(score - AT_RISK) < 0.005 else score
        score = None if number % 200 == 0 else round(score, 4)  # the model had too little to go by
        # Never a whole number: Iterable takes the type of a field from the first value that it sees.
        importance = None if number % 250 == 0 else tuple(round(dice.uniform(-0.4, 0.6), 3) or 0.001 for _ in range(3))
        encodings = {"account_tier": tier, "country": dice.randrange(len(COUNTRIES))}
        if number % 3 == 0:
            encodings["device"] = dice.randrange(4)
        scored = FIRST_RUN + timedelta(microseconds=dice.randrange(60_000_000))
        rows.append((user(number), score, TIERS[tier], importance, encodings, dice.choices((0, 1, 2, 3, 5), (6, 3, 2, 1, 1))[0], scored))
    return rows


def user_rows() -> list[tuple]:
    dice, missing = random.Random(6), without_email()
    rows = []
    for number in range(1, PEOPLE + 1):
        if number in missing:
            continue
        address = lake.email(number)
        address = address.upper() if number % 50 == 0 else address
        rows.append((user(number), address, FIRST_RUN - timedelta(days=dice.randint(10, 900), seconds=dice.randrange(86_400))))
    dice.shuffle(rows)
    return rows


def second_run(spark: SparkSession, scores: Path) -> None:
    """The day after: the job merges the scores that moved. Some people fall below the line, some rise above it, some move on their side."""
    linked = [user(number) for number in range(1, PEOPLE + 1) if number not in without_email()]
    now = {row["user_id"]: row["churn_risk_score"] for row in lake.read(spark, scores).collect()}
    above = [name for name in linked if (now[name] or 0) > AT_RISK]
    below = [name for name in linked if now[name] is not None and now[name] < AT_RISK]
    moved = {name: round(0.35 + index * 0.01, 4) for index, name in enumerate(above[3::5][:FALL])}
    moved |= {name: round(0.74 + index * 0.02, 4) for index, name in enumerate(below[7::60][:RISE])}
    moved |= {name: round(0.12 + index * 0.03, 4) for index, name in enumerate(below[11::70][:DRIFT])}
    assert len(moved) == FALL + RISE + DRIFT, len(moved)
    changes = spark.createDataFrame([(name, score, FIRST_RUN + DAY) for name, score in moved.items()], "user_id string, score double, at timestamp")
    changes.createOrReplaceTempView("changes")
    spark.sql(
        f"MERGE INTO delta.`{scores}` AS old USING changes AS new ON old.user_id = new.user_id "
        "WHEN MATCHED THEN UPDATE SET churn_risk_score = new.score, scored_at = new.at"
    )


def third_run(spark: SparkSession, scores: Path) -> DataFrame:
    """Another version of the model: it overwrites the table, writes the score as text, weighs support tickets (an integer no longer) and
    says why in a new column. Most people's values are the same as before."""
    linked = [user(number) for number in range(1, PEOPLE + 1) if number not in without_email()]
    frame = lake.read(spark, scores)
    now = {row["user_id"]: row["churn_risk_score"] for row in frame.collect()}
    quiet = [name for name in linked if now[name] is not None and now[name] < 0.6]
    drift, fractions = quiet[2::31][:LATER_DRIFT], quiet[9::97][:FRACTIONS]
    assert len(drift) == LATER_DRIFT and len(fractions) == FRACTIONS and not set(drift) & set(fractions)
    here = F.col("user_id")
    score = F.when(here.isin(drift), F.round(F.col("churn_risk_score") + 0.02, 4)).otherwise(F.col("churn_risk_score"))
    tickets = F.col("support_tickets").cast("double")
    importance = F.col("feature_importance")
    strongest = F.greatest(importance["login_recency"], importance["support_load"], importance["payment_failures"])
    reason = (
        F.when(importance["login_recency"] == strongest, "login_recency")
        .when(importance["support_load"] == strongest, "support_load")
        .when(importance["payment_failures"] == strongest, "payment_failures")
    )
    return frame.select(
        "user_id",
        score.cast("string").alias("churn_risk_score"),
        "account_tier",
        "feature_importance",
        "encodings",
        F.when(here.isin(fractions), tickets + 0.5).otherwise(tickets).alias("support_tickets"),
        F.when(here.isin(drift + fractions), F.lit(FIRST_RUN + 2 * DAY)).otherwise(F.col("scored_at")).alias("scored_at"),
        reason.alias("churn_reason"),
    )


def answers(spark: SparkSession, scores: Path, users: Path, out: Path) -> None:
    """Spark's own answers: what any reader of the tables must find."""
    links = lake.read(spark, users, 1).select("user_id", F.lower(F.trim("email")).alias("email"))
    assert lake.put(links, "user_id", out / "users.links.ndjson") == PEOPLE - WITHOUT_EMAIL
    runs = {version: lake.read(spark, scores, version) for version in (1, 2, 3)}
    assert lake.put(runs[1], "user_id", out / "churn_scores.v1.snapshot.ndjson") == PEOPLE

    def changed(before: DataFrame, after: DataFrame) -> DataFrame:
        """Rows whose values differ, whatever type they are written in."""
        pairs = before.alias("old").join(after.alias("new"), F.col("old.user_id") == F.col("new.user_id"))
        same = F.lit(True)
        for name in ("churn_risk_score", "support_tickets"):
            same = same & F.col(f"old.{name}").cast("double").eqNullSafe(F.col(f"new.{name}").cast("double"))
        return pairs.where(~same).select("new.*")

    assert lake.put(changed(runs[1], runs[2]), "user_id", out / "churn_scores.v2.changed.ndjson") == FALL + RISE + DRIFT
    assert lake.put(changed(runs[2], runs[3]), "user_id", out / "churn_scores.v3.changed.ndjson") == LATER_DRIFT + FRACTIONS

    lists = {}
    for version, frame in runs.items():
        members = frame.where(F.col("churn_risk_score").cast("double") > AT_RISK).join(links, "user_id").select("user_id", "email")
        lists[version] = {row["user_id"] for row in members.collect()}
        if version < 3:
            lake.put(members, "user_id", out / f"retention_list.v{version}.ndjson")
    assert len(lists[1] - lists[2]) == FALL and len(lists[2] - lists[1]) == RISE, "people leave and join"
    assert lists[2] == lists[3], "the third run moves nobody across the line"
    print({f"list v{version}": len(members) for version, members in lists.items()})


def make(spark: SparkSession, root: Path) -> None:
    scores, users = root / "churn_scores", root / "users"
    lake.create(spark, scores, SCORES)
    lake.write(spark.createDataFrame(score_rows(), SCORES), scores, "append")
    lake.create(spark, users, USERS)
    lake.write(spark.createDataFrame(user_rows(), USERS), users, "append")
    second_run(spark, scores)
    lake.write(third_run(spark, scores), scores, "overwrite", overwriteSchema="true")
    answers(spark, scores, users, root / "expected")


if __name__ == "__main__":
    lake.run(__file__, ("churn_scores", "users"), make, (("users", 1), ("churn_scores", 3), ("churn_scores", 2)))
