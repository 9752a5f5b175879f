"""Writes the sample lake of the winback example with Apache Spark and Delta Lake, and Spark's own answers beside it.

    python -m venv /tmp/lake && /tmp/lake/bin/pip install pyspark==4.0.1 delta-spark==4.0.1
    mvn dependency:copy -Dartifact=io.delta:delta-spark_2.13:4.0.1 -DoutputDirectory=/tmp/lake/jars
    mvn dependency:copy -Dartifact=io.delta:delta-storage:4.0.1 -DoutputDirectory=/tmp/lake/jars
    /tmp/lake/bin/python make_lake.py --jars /tmp/lake/jars

Java 17; about a minute. The values are the same in every run (names of files and ids of tables are not). All people and
addresses are made up.

The tables are left as they were before the story begins. The commits that the story plays are taken out again and kept, file by
file as Spark wrote them, under `lake/later/<table>-v<version>`; `lake/commit.sh` puts them back.
"""
from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

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
FIRST = ["ana", "bo", "chen", "dara", "eszter", "femi", "greta", "hugo", "ines", "jun", "kofi", "lena", "mira", "noor", "otto", "priya"]
LAST = ["lopez", "jensen", "wei", "okafor", "nagy", "santos", "lind", "moreau", "sato", "mensah", "novak", "khan", "weiss", "rossi"]
DOMAINS = ["example.com", "example.org", "example.net"]

# Spark's default timestamp format has milliseconds only.
JSON = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}


def customer(number: int) -> str:
    return f"cust_{number:05d}"


def email(number: int) -> str:
    return f"{FIRST[number % len(FIRST)]}.{LAST[number % len(LAST)]}{number}@{DOMAINS[number % len(DOMAINS)]}"


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


def session(jars: Path, scratch: Path) -> SparkSession:
    found = sorted(str(jar) for jar in jars.glob("delta-*.jar"))
    if len(found) < 2:
        sys.exit(f"the jars of delta-spark and delta-storage are not in {jars}: the commands that fetch them are at the head of this file")
    conf = {
        "spark.master": "local[1]",
        "spark.jars": ",".join(found),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    builder = SparkSession.builder.appName("winback-lake")
    for name, value in conf.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def create(spark: SparkSession, path: Path, columns: str) -> None:
    spark.sql(f"CREATE TABLE delta.`{path}` ({columns}) USING delta TBLPROPERTIES ('delta.enableChangeDataFeed'='true')")


def write(frame: DataFrame, path: Path, mode: str, **options: str) -> None:
    frame.coalesce(1).write.format("delta").mode(mode).options(**options).save(str(path))


def read(spark: SparkSession, path: Path, version: int | None = None) -> DataFrame:
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(str(path))


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


def put(frame: DataFrame, order: str, file: Path) -> int:
    """Writes the rows as Spark says them in JSON, ordered."""
    rows = frame.select(F.col(order).alias("order"), F.to_json(F.struct(*frame.columns), JSON).alias("json")).orderBy("order")
    lines = [row["json"] for row in rows.collect()]
    file.write_text("".join(line + "\n" for line in lines))
    return len(lines)


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


def take_out(table: Path, version: int, to: Path) -> None:
    """Moves the files of the latest commit out of the table. The files that it removes are still there: Delta only notes their removal."""
    log = table / "_delta_log" / f"{version:020d}.json"
    (to / "_delta_log").mkdir(parents=True)
    for name in re.findall(r'"add":\{"path":"([^"]+)"', log.read_text()):
        (table / name).rename(to / name)
    for file in (log, log.with_suffix(".crc")):
        file.rename(to / "_delta_log" / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jars", type=Path, required=True, help="folder with the jars of delta-spark and delta-storage")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "lake", help="folder to write into")
    args = parser.parse_args()
    root = args.out.resolve()
    for name in ("ltv_scores", "orders", "later", "expected"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "expected").mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix="winback-lake-"))
    spark = session(args.jars, scratch)
    try:
        scores, orders = root / "ltv_scores", root / "orders"
        create(spark, scores, LTV)
        write(spark.createDataFrame(ltv_rows(), LTV), scores, "append")
        create(spark, orders, ORDER)
        write(spark.createDataFrame(order_rows(), ORDER), orders, "append")
        write(next_model_run(spark, scores), scores, "overwrite", overwriteSchema="true")
        answers(spark, scores, orders, root / "expected")
    finally:
        spark.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    for sidecar in root.rglob(".*.crc"):  # Hadoop's checksums of its own files; the log's NNN.crc are Delta's and stay
        sidecar.unlink()
    take_out(orders, 1, root / "later" / "orders-v1")
    take_out(scores, 2, root / "later" / "ltv_scores-v2")
    for staged in root.rglob("_staged_commits"):
        if not any(staged.iterdir()):
            staged.rmdir()


if __name__ == "__main__":
    main()
