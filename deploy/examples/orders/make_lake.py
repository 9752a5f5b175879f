"""Writes the table of the orders example with Apache Spark and Delta Lake, and its rows as Spark says them in JSON.

How to run it: `../spark_lake.py`.
"""
from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import spark_lake as lake  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

ORDERS, CARTS = 40, 12
START = datetime(2026, 6, 1, 8, 0)

COLUMNS = """event_id string, event string, order_id string, customer_id string, email string,
    items array<struct<product_id:string, sku:string, name:string, quantity:int, price:decimal(10,2), categories:array<string>>>,
    total decimal(12,2), currency string, occurred_at timestamp"""

PRODUCTS = [
    ("p-1", "TEA-ASSAM", "Assam tea", Decimal("9.95"), ["tea", "black"]),
    ("p-2", "TEA-SENCHA", "Sencha", Decimal("12.40"), ["tea", "green"]),
    ("p-3", "POT-CAST", "Cast iron pot", Decimal("48.00"), ["ware"]),
    ("p-4", "CUP-SMALL", "Small cup", Decimal("0.10"), ["ware", "sale"]),
    ("p-5", "GIFT", "Gift card", Decimal("1000000.01"), []),
    ("p-6", None, "Loose sample", Decimal("0.00"), ["tea"]),
]


def rows() -> list[tuple]:
    dice, made = random.Random(11), []
    for number in range(1, ORDERS + CARTS + 1):
        purchased = number <= ORDERS
        chosen = dice.sample(PRODUCTS, dice.randint(1, 3))
        items = [(*product[:3], dice.randint(1, 3), *product[3:]) for product in chosen]
        total = sum((price * quantity for _, _, _, quantity, price, _ in items), Decimal(0))
        customer = dice.randint(1, 30)
        made.append((
            f"event_{number:04d}",
            "order.purchased" if purchased else "cart.abandon",
            f"ord_{number:04d}" if purchased else None,
            f"cust_{customer:03d}",
            lake.email(customer),
            items,
            total,
            "EUR",
            START + timedelta(minutes=number, microseconds=dice.randrange(1_000_000)),
        ))
    return made


def make(spark: SparkSession, root: Path) -> None:
    lake.create(spark, root / "orders", COLUMNS)
    lake.write(spark.createDataFrame(rows(), COLUMNS), root / "orders", "append")
    assert lake.put(lake.read(spark, root / "orders"), "event_id", root / "expected" / "orders.ndjson") == ORDERS + CARTS


if __name__ == "__main__":
    lake.run(__file__, ("orders",), make, ())
