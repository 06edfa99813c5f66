"""`batch_predict`: from what the user names to the output, the rejected rows and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from toolkit.batch.ahead import ahead
from toolkit.batch.assemble import check_complete
from toolkit.batch.checks import Violation
from toolkit.batch.lock import CheckOwned, owned
from toolkit.batch.parts import Receipt, read_receipt
from toolkit.batch.pipeline import score_locally
from toolkit.batch.prepare import Prepared, prepare
from toolkit.batch.publish import publish, published_before, with_replay
from toolkit.batch.ray_cluster import check_ray
from toolkit.batch.ray_engine import score_on_ray
from toolkit.batch.score import Job
from toolkit.batch.shards import plan_shards
from toolkit.batch.sources import check_unchanged_since
from toolkit.batch.summary import Summary, evidence_of, summary_of
from toolkit.batch.tidy import grouped
from toolkit.batch.work import begin, clear, clear_partial, unfinished_run
from toolkit.cores import usable_cores
from toolkit.errors import OutputError, reason_of
from toolkit.progress import Report, silent

ENGINES = ("local", "ray")


def batch_predict(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: Path | str = Path("model"),
    output: Path | str | None = None,
    file: str | None = None,
    check: str = "all",
    column: str | None = None,
    order: str | None = None,
    group_by: str | Sequence[str] = (),
    columns: Sequence[str] = (),
    strict_range: bool = False,
    runtime: str | None = None,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    keep_going: bool = False,
    interval: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Score Parquet files of datasets, with an eye on every output.

    The output holds every input column but the datasets, `predicted_<parameter>`, `source_file` (the path as named in
    `inputs`, or found below the folder named) and `source_row`, in input order. Rows that cannot be scored go to a file
    of their own. Both appear whole, when every row is accounted for, or not at all. The bytes depend on the inputs (as
    named), the model and the options, not on `workers`, `output` or how often the run was interrupted.

        >>> summary = toolkit.batch_predict("response_times.parquet", model="samples/model", output="estimates.parquet")
        >>> summary.rows_in, summary.rows_predicted, summary.rows_rejected
        (34, 34, 0)
        >>> summary.smallest["t0"][0]["source_row"]  # of the least estimate of t0
        15

    Several runs may go on at once, in threads or processes, as long as each has an output of its own.

    Args:
        inputs: files, folders, globs, and URIs such as s3://bucket/folder/.
        model: the model directory; $TOOLKIT_MODEL is the command's alone.
        output: `<input>.predictions.parquet` by default, or a URI; has to be named when there are several inputs.
        file: the exported file that scores, model.float32.tflite by default.
        check: 'all' runs every exported file on every row, 'sample' on one in a hundred and on those with the smallest
            outputs, 'off' runs only the one that scores. Its outputs are checked on every row in any case.
        column: the column of the datasets, where several could be.
        order: 'row' or 'column', how flat lists lie.
        group_by: of tidy tables, whose rows are observations: the column, or columns, of the id that the rows of one
            dataset share. They may lie anywhere in the files, and are taken in the order in which they stand. The
            output then holds the id and the predictions, in order of first appearance; `source_row` is a group's first
            row, and rows in, predicted and rejected count groups. All rows of a rejected group go with it.
        columns: of tidy tables, the columns of a dataset, in the model's order; by default those of its names.
        strict_range: reject datasets with a value outside the range seen in training, instead of counting them.
        runtime: 'litert', 'onnxruntime' or 'openvino', what runs `file`; by default the one of its ending.
        workers: threads; one for each usable core by default. With Ray processes; one for each CPU of the cluster.
        engine: 'local', or 'ray' for a cluster whose nodes all see the inputs and the output's folder.
        ray_address: HOST:PORT of the cluster that this machine is part of, or 'auto' to look for it. By default the one
            that $RAY_ADDRESS names; else one is started on this machine, and ended afterwards.
        keep_going: leave out row groups and files that cannot be read, and name them in the summary. Every file is read
            once before.
        interval: a level between 0 and 1, .9 say: for each parameter the output then also holds both ends of an
            interval, `predicted_<parameter>_low` and `_high`, strictly positive, that holds the true value of that
            share of all datasets like those of training. See toolkit/intervals.py.
        resume: go on with the unfinished run to the same output, if there is one.
        overwrite: replace a finished output.
        report: told of rows done, rows in all and rows rejected so far, after each shard.
        say: told, once and before the first row is read, where the datasets are and how they lie.
    Returns:
        What was done, the checks' findings included; `to_json()` of it is what the command prints with --json.
    Raises:
        InputError: files that cannot be read or do not fit the model.
        ModelError: a model that is absent or changed.
        NotPositive: an exported file gave an output that is not finite and positive; the message names the row, and the
            file that holds its dataset.
        OutputError: the output exists, or cannot be written; or the unfinished run is another one.
        ClusterError: the Ray cluster cannot be reached, or its nodes differ from this machine or die again and again.
        MissingExtra: Ray is to be used and not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}, not one of {', '.join(ENGINES)}")
    if engine == "ray":
        check_ray()
    begun = time.monotonic()
    prepared = prepare(
        inputs,
        model=model,
        output=output,
        file=file,
        check=check,
        column=column,
        order=order,
        group_by=[group_by] if isinstance(group_by, str) else group_by,
        columns=columns,
        strict_range=strict_range,
        runtime=runtime,
        keep_going=keep_going,
        interval=interval,
    )
    for line in prepared.describe_layouts():
        say(line)
    if not resume:
        prepared.paths.check_free(overwrite)
    score = (
        partial(score_on_ray, workers=workers, address=ray_address)
        if engine == "ray"
        else partial(score_locally, workers=workers or usable_cores())
    )
    paths = prepared.paths
    try:
        with owned(paths.work) as check_owned:
            evidence = published_before(prepared.key.digest, paths) if resume else None
            if evidence is None:
                going_on = resume and _can_go_on(prepared)
                paths.check_free(overwrite, unpublished=going_on)
                if going_on:
                    clear_partial(paths.work)
                else:
                    begin(paths.work, prepared.key)
                job = grouped(prepared.job)
                receipts = _score_all(prepared, job, going_on, score, report, check_owned)
                evidence = evidence_of(job, prepared.key, prepared.scoring, receipts, prepared.lost)
                publish(job, paths, receipts, evidence, prepared.job.sources)
            clear(paths.work)
    except OSError as error:
        raise OutputError(
            f"{error.filename or paths.output}: {error.strerror or reason_of(error)}. When there is room and "
            "permission to write, run the same command with --resume."
        ) from error
    return summary_of(evidence, prepared.job.spec.parameters, paths, time.monotonic() - begun)


def _can_go_on(prepared: Prepared) -> bool:
    """Whether the work folder holds parts of this run.

    Raises:
        OutputError: it holds parts of another one; the message names the difference.
    """
    work = prepared.paths.work
    earlier = unfinished_run(work)
    if earlier is None:
        return False
    if difference := prepared.key.difference(earlier):
        raise OutputError(f"{work}: cannot resume, {difference}. Start afresh without --resume, or undo the change.")
    return True


def _score_all(
    prepared: Prepared,
    job: Job,
    going_on: bool,
    score: Callable[..., None],
    report: Report,
    check_owned: CheckOwned,
) -> list[Receipt]:
    """Score what is not scored yet; the receipts of all shards, in order, which account for every row."""
    work = prepared.paths.work
    shards = plan_shards(job.sources)
    total = sum(source.rows_kept for source in job.sources)
    found = ahead(lambda shard: read_receipt(work, shard, job.run), shards if going_on else ())
    receipts = {receipt.shard: receipt for receipt in found if receipt}
    rows_done = sum(receipt.rows_in for receipt in receipts.values())
    rejected = sum(receipt.rows_rejected for receipt in receipts.values())
    report(rows_done, total, rejected)

    def done(receipt: Receipt) -> None:
        nonlocal rows_done, rejected
        check_owned()
        receipts[receipt.shard] = receipt
        rows_done += receipt.rows_in
        rejected += receipt.rows_rejected
        report(rows_done, total, rejected)

    try:
        score(job, [shard for shard in shards if shard.index not in receipts], done=done)
    except Violation as violation:
        raise with_replay(violation, prepared.paths) from violation
    for source in prepared.job.sources:
        check_unchanged_since(source)
    in_order = [receipts[shard.index] for shard in shards if shard.index in receipts]
    check_complete(shards, in_order, total)
    check_owned()
    return in_order
