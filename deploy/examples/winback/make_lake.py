"""Writes the sample lake of the winback example with Apache Spark and Delta Lake, and Spark's own answers beside it.

How to run it: `../spark_lake.py`.
"""
from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from spark_lake import create, email, put, read, run, write  # noqa: E402
from pyspark.sql import DataFrame, SparkSession, functions as F  # noqa: E402

CUSTOMERS = 5000
WITHOUT_ORDER = 100  # their rows stay held: nothing links them to an email
REPEAT_ORDERS = 300  # second orders, their emails typed another way
CHANGED = 12  # rows in which the model's next run really differs
AT_RISK_AFTER_DAYS = 90  # as in transforms/ltv.js

MODEL_RUN = datetime(2026, 3, 2, 2, 30)
NEXT_RUN = MODEL_RUN + timedelta(days=1)

LTV = """customer_id string, ltv_predicted double, rfm_segment string, last_purchase_date date,
    feature_summary struct<orders:int, avg_order_value:double, days_since_purchase:int>, scores array<double>, updated_at timestamp"""
ORDER = "order_id string, customer_id string, email string, total decimal(10,2), currency string, ordered_at timestamp"

# share of customers, typical value, longest time since the last purchase
SEGMENTS = {
    "champions": (0.12, 2400, 160),
    "loyal": (0.23, 900, 120),
    "promising": (0.20, 300, 60),
    "needs_attention": (0.20, 240, 200),
    "hibernating": (0.25, 80, 700),
}

def customer(number: int) -> str:
    return f"cust_{number:05d}"


def without_order() -> set[int]:
    return set(random.Random(3).sample(range(1, CUSTOMERS + 1), WITHOUT_ORDER))


def ltv_rows() -> list[tuple]:
    dice, rows = random.Random(1), []
    names, shares = list(SEGMENTS), [share for share, _, _ in SEGMENTS.values()]
    for number in range(1, CUSTOMERS + 1):
        segment = dice.choices(names, shares)[0]
        _, value, longest = SEGMENTS[segment]
        days, orders = dice.randint(1, longest), dice.randint(1, 40)
        ltv = None if number % 250 == 0 else round(value * dice.lognormvariate(0, 0.4), 2)
        average = None if number % 410 == 0 else round(dice.uniform(8, 240), 2)
        summary = None if number % 500 == 0 else (orders, average, days)
        scores = [round(dice.random(), 3) for _ in range(number % 4)]
        updated = MODEL_RUN + timedelta(microseconds=dice.randrange(60_000_000))
        rows.append((customer(number), ltv, segment, MODEL_RUN.date() - timedelta(days=days), summary, scores, updated))
    return rows


def order_rows() -> list[tuple]:
    dice, missing = random.Random(2), without_order()
    buyers = [number for number in range(1, CUSTOMERS + 1) if number not in missing]
    dice.shuffle(buyers)
    rows = []
    for index, number in enumerate(buyers + buyers[:REPEAT_ORDERS]):
        address = email(number)
        if index >= len(buyers):
            address = f" {address.title()}" if index % 2 else address.upper()
        total = Decimal(dice.randint(500, 40_000)) / 100
        rows.append((f"ord_{index + 1:06d}", customer(number), address, total, dice.choice(["EUR", "USD"]),
                     MODEL_RUN + timedelta(hours=1, seconds=index, microseconds=dice.randrange(1_000_000))))
    return rows


def next_model_run(spark: SparkSession, scores: Path) -> DataFrame:
    """The model's next run, as such jobs write it: the same customers, `ltv_predicted` under its new name, an interval beside it, and
    twelve customers whose numbers moved. Everything else is equal to the microsecond, `updated_at` too."""
    linked = sorted(set(range(1, CUSTOMERS + 1)) - without_order())
    # Positions picked so that each kind of change is there once at least; the assertions in `main` hold them to it.
    rows = {row["customer_id"]: row for row in read(spark, scores).collect()}
    usual = [n for n in linked if rows[customer(n)]["ltv_predicted"] is not None and rows[customer(n)]["feature_summary"] is not None]
    moved = {customer(n) for n in usual[400::480][:9]}  # another value, a later updated_at
    lapsing = customer(next(n for n in usual if rows[customer(n)]["rfm_segment"] == "loyal"
                            and rows[customer(n)]["feature_summary"]["days_since_purchase"] > AT_RISK_AFTER_DAYS
                            and customer(n) not in moved))  # becomes a champion, and at risk at once: joins the list
    first_value = customer(next(n for n in linked if rows[customer(n)]["ltv_predicted"] is None))  # had none, has one now
    only_renamed = customer(next(n for n in usual if customer(n) not in moved | {lapsing, first_value}))  # nothing else moved
    changed = moved | {lapsing, first_value, only_renamed}
    assert len(changed) == CHANGED, changed

    here = F.col("customer_id")
    score = F.when(here.isin(list(changed)), F.round(F.coalesce("ltv_predicted", F.lit(180.0)) * 1.15 + 1, 2)).otherwise(F.col("ltv_predicted"))
    stamped = F.when(here.isin(list(changed - {only_renamed})), F.lit(NEXT_RUN)).otherwise(F.col("updated_at"))
    return read(spark, scores).select(
        "customer_id",
        score.alias("ltv_score"),
        F.when(here == lapsing, F.lit("champions")).otherwise(F.col("rfm_segment")).alias("rfm_segment"),
        "last_purchase_date",
        "feature_summary",
        "scores",
        stamped.alias("updated_at"),
        F.when(score.isNotNull(), F.struct(F.round(score * 0.8, 2).alias("low"), F.round(score * 1.2, 2).alias("high")))
        .alias("confidence_interval"),
    )


def answers(spark: SparkSession, scores: Path, orders: Path, out: Path) -> None:
    """Spark's own answers: what any reader of the tables must find."""
    before, after = read(spark, scores, 1), read(spark, scores, 2)
    put(before, "customer_id", out / "ltv_scores.v1.snapshot.ndjson")

    old = before.withColumnRenamed("ltv_predicted", "ltv_score")
    same = None
    for name in old.columns:
        equal = F.col(f"old.{name}").eqNullSafe(F.col(f"new.{name}"))
        same = equal if same is None else same & equal
    pairs = old.alias("old").join(after.alias("new"), F.col("old.customer_id") == F.col("new.customer_id"), "full_outer")
    changed = pairs.where(~same).select("new.*")
    assert put(changed, "customer_id", out / "ltv_scores.v2.changed.ndjson") == CHANGED
    quiet = pairs.where(F.col("old.updated_at").eqNullSafe(F.col("new.updated_at")) & ~same)
    assert quiet.count() == 1, "exactly one row differs in the renamed column alone"

    links = read(spark, orders, 1).select("customer_id", F.lower(F.trim("email")).alias("email")).distinct()
    assert put(links, "customer_id", out / "orders.links.ndjson") == CUSTOMERS - WITHOUT_ORDER
    assert links.select("email").distinct().count() == CUSTOMERS - WITHOUT_ORDER, "one email each"

    def at_risk(frame: DataFrame) -> DataFrame:
        lapsed = F.col("feature_summary.days_since_purchase") > AT_RISK_AFTER_DAYS
        return frame.where((F.col("rfm_segment") == "champions") & lapsed).select("customer_id")

    first = at_risk(before).join(links, "customer_id").withColumn("since_version", F.lit(1))
    later = at_risk(after).join(at_risk(before), "customer_id", "left_anti").join(links, "customer_id").withColumn("since_version", F.lit(2))
    assert later.count() == 1 and at_risk(before).join(at_risk(after), "customer_id", "left_anti").count() == 0
    put(first.unionByName(later), "customer_id", out / "winback_list.ndjson")


def make(spark: SparkSession, root: Path) -> None:
    scores, orders = root / "ltv_scores", root / "orders"
    create(spark, scores, LTV)
    write(spark.createDataFrame(ltv_rows(), LTV), scores, "append")
    create(spark, orders, ORDER)
    write(spark.createDataFrame(order_rows(), ORDER), orders, "append")
    write(next_model_run(spark, scores), scores, "overwrite", overwriteSchema="true")
    answers(spark, scores, orders, root / "expected")


if __name__ == "__main__":
    run(__file__, ("ltv_scores", "orders"), make, (("orders", 1), ("ltv_scores", 2)))
