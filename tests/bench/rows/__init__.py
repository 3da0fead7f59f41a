"""The rows of the table, by name, in the order in which they run."""

from tests.bench.bench import Row
from tests.bench.rows.backlog import backlog, full_storage, kinds
from tests.bench.rows.external import external
from tests.bench.rows.live import live
from tests.bench.rows.many import instances, open_runs, short_runs
from tests.bench.rows.one import idle_runs, longest, restart, starts, verify

ROWS: dict[str, Row] = {
    "backlog": backlog,
    "full-storage": full_storage,
    "kinds": kinds,
    "live": live,
    "short-runs": short_runs,
    "external": external,
    "open-runs": open_runs,
    "longest": longest,
    "restart": restart,
    "idle-runs": idle_runs,
    "starts": starts,
    "instances": instances,
    "verify": verify,
}
