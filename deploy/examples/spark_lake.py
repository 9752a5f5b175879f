"""What the scripts that write the sample lakes share: a Spark session with Delta Lake, and commits that can be played later.

    python -m venv /tmp/lake && /tmp/lake/bin/pip install pyspark==4.0.1 delta-spark==4.0.1 numpy
    mvn dependency:copy -Dartifact=io.delta:delta-spark_2.13:4.0.1 -DoutputDirectory=/tmp/lake/jars
    mvn dependency:copy -Dartifact=io.delta:delta-storage:4.0.1 -DoutputDirectory=/tmp/lake/jars
    /tmp/lake/bin/python deploy/examples/<example>/make_lake.py --jars /tmp/lake/jars

Java 17; about a minute an example. The values are the same in every run (names of files and ids of tables are not). All people and
addresses are made up.

The tables are left as they were before the story begins. The commits that the story plays are taken out again and kept, file by
file as Spark wrote them, under `lake/later/<table>-v<version>`; `lake/commit.sh` puts them back.
"""
from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

os.environ["TZ"] = "UTC"
time.tzset()

from pyspark.sql import DataFrame, SparkSession, functions as F  # noqa: E402

FIRST = ["ana", "bo", "chen", "dara", "eszter", "femi", "greta", "hugo", "ines", "jun", "kofi", "lena", "mira", "noor", "otto", "priya"]
LAST = ["lopez", "jensen", "wei", "okafor", "nagy", "santos", "lind", "moreau", "sato", "mensah", "novak", "khan", "weiss", "rossi"]
DOMAINS = ["example.com", "example.org", "example.net"]

# Spark's default timestamp format has milliseconds only.
JSON = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}


def email(number: int) -> str:
    return f"{FIRST[number % len(FIRST)]}.{LAST[number % len(LAST)]}{number}@{DOMAINS[number % len(DOMAINS)]}"


def session(jars: Path, scratch: Path, name: str) -> SparkSession:
    found = sorted(str(jar) for jar in jars.glob("delta-*.jar"))
    if len(found) < 2:
        sys.exit(f"the jars of delta-spark and delta-storage are not in {jars}: the commands that fetch them are in {__file__}")
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
    builder = SparkSession.builder.appName(name)
    for key, value in conf.items():
        builder = builder.config(key, value)
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


def put(frame: DataFrame, order: str, file: Path) -> int:
    """Writes the rows as Spark says them in JSON, ordered."""
    rows = frame.select(F.col(order).alias("order"), F.to_json(F.struct(*frame.columns), JSON).alias("json")).orderBy("order")
    lines = [row["json"] for row in rows.collect()]
    file.write_text("".join(line + "\n" for line in lines))
    return len(lines)


def take_out(table: Path, version: int, to: Path) -> None:
    """Moves the files of the latest commit out of the table. The files that it removes are still there: Delta only notes their removal."""
    log = table / "_delta_log" / f"{version:020d}.json"
    text = log.read_text()
    (to / "_delta_log").mkdir(parents=True)
    for name in re.findall(r'"(?:add|cdc)":\{"path":"([^"]+)"', text):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (table / name).rename(to / name)
    for file in (log, log.with_suffix(".crc")):
        file.rename(to / "_delta_log" / file.name)


def run(script: str, tables: tuple[str, ...], make: Callable[[SparkSession, Path], None], later: tuple[tuple[str, int], ...]) -> None:
    """Makes the lake beside the script: `make` writes all tables and answers, `later` names the commits that are taken out, in the order in
    which they are taken: the latest one of a table first."""
    example = Path(script).resolve().parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--jars", type=Path, required=True, help="folder with the jars of delta-spark and delta-storage")
    parser.add_argument("--out", type=Path, default=example / "lake", help="folder to write into")
    args = parser.parse_args()
    root = args.out.resolve()
    for name in (*tables, "later", "expected"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "expected").mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp(prefix="example-lake-"))
    spark = session(args.jars, scratch, example.name)
    try:
        make(spark, root)
    finally:
        spark.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    for sidecar in root.rglob(".*.crc"):  # Hadoop's checksums of its own files; the log's NNN.crc are Delta's and stay
        sidecar.unlink()
    for table, version in later:
        take_out(root / table, version, root / "later" / f"{table}-v{version}")
    for folder in ("_staged_commits", "_change_data"):
        for left in root.rglob(folder):
            if not any(left.iterdir()):
                left.rmdir()
