"""Tables of a catalog that Spark reads, Delta and Iceberg among them, as Parquet files.

Such a table has no order. Its rows get one that depends on their values alone: by time, then by a
hash of all columns. So the number of a row is the same in every export.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemix.errors import DataError
from hemix.preparation.log_files import CATALOG, is_catalog_table
from hemix.schema import Schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["catalog_tables", "export_table", "file_url"]

_TIMESTAMPS = "spark.sql.parquet.outputTimestampType"


def catalog_tables(schema: Schema) -> dict[str, str]:
    """Return the tables of a catalog by role, such as ``events``."""
    roles = type(schema.tables).model_fields
    names = {role: getattr(schema.tables, role) for role in roles}
    return {
        role: name for role, name in names.items() if name is not None and is_catalog_table(name)
    }


def export_table(session: SparkSession, schema: Schema, role: str, name: str, folder: Path) -> None:
    """Write a table as Parquet files whose rows are in the order of the files.

    Args:
        session: Knows the catalog.
        schema: Names the columns of times.
        role: Role of the table, such as ``events``.
        name: ``spark://catalog.database.table``.
        folder: A new folder.

    Raises:
        DataError: There is no such table, or it has a column that Parquet files cannot hold.
    """
    from pyspark.errors import AnalysisException

    table = _table(session, role, name)
    earlier = session.conf.get(_TIMESTAMPS, None)
    try:
        session.conf.set(_TIMESTAMPS, "TIMESTAMP_MICROS")  # the default has no time zone
        table.sort(*_order(schema, role, table)).write.parquet(file_url(folder))
    except AnalysisException as error:
        raise DataError(
            f"tables.{role}: {name}: cannot be read as Parquet: {_problem(error)}",
            field=f"tables.{role}",
        ) from error
    finally:
        if earlier is None:
            session.conf.unset(_TIMESTAMPS)
        else:
            session.conf.set(_TIMESTAMPS, earlier)


def _table(session: SparkSession, role: str, name: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    try:
        return session.table(name.removeprefix(CATALOG))
    except AnalysisException as error:
        raise DataError(
            f"tables.{role}: {name}: {_problem(error)}",
            field=f"tables.{role}",
            hint="name a table of a catalog of the session: spark://[catalog.]database.table",
        ) from error


def _problem(error: Exception) -> str:
    """The first line of Spark's message."""
    return str(error).strip().partition("\n")[0]


def _order(schema: Schema, role: str, table: DataFrame) -> list[Any]:
    """The time, if the table has one, and a hash of all columns that Spark can hash."""
    from pyspark.sql import functions

    times = {
        "impressions": schema.clock.column,
        "events": schema.history.clock_column or schema.clock.column,
    }
    time = times.get(role, schema.valid_from)
    names = [f"`{name.replace('`', '``')}`" for name in sorted(table.columns)]
    hashed = [table[quoted] for quoted in names if "map<" not in table.select(quoted).dtypes[0][1]]
    order = [functions.xxhash64(*hashed)]
    if time in table.columns:
        order.insert(0, table[f"`{time.replace('`', '``')}`"])
    return order


def file_url(path: Path) -> str:
    """Return a path in Hadoop's form: it takes all characters after the scheme as they are."""
    return f"file://{path}"
