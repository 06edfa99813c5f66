"""Scoring Parquet files of datasets: nothing lost, every output checked, the same bytes on any number of workers.

sources.py   what the user named -> the files to score
columns.py   which columns go where
damage.py    what of the files cannot be read
shards.py    what is scored as one, and how it is read
score.py     one shard: read, score, check, write
guilty.py    a row with which something raises, alone
checks.py    is every output positive, do the exported files agree
smallest.py  the smallest predictions and their rows
parts.py     one part and one receipt a shard
pipeline.py  the local engine: a reader and workers
schedule.py  who scores which shard, on a cluster
ray_*.py     the Ray engine: the driver, what a worker does, the connection
assemble.py  parts -> one file, in input order
tidy.py      tidy tables: grouped before, and the rows of rejected groups found again
origins.py   where their groups come from
paths.py     where a run writes
storage.py   a folder here or in an object store: what is written there appears whole or not at all
ahead.py     many small requests at a time
lock.py      who owns the folder of an unfinished run
work.py      which run that folder is of
publish.py   the result appears
summary.py   what a run says of itself
prepare.py   what the user names -> a run that could begin
run.py       all of it
plan.py      what a run would do, and how long it would take
"""

from toolkit.batch.run import batch_predict
from toolkit.batch.summary import Summary

__all__ = ["Summary", "batch_predict"]
