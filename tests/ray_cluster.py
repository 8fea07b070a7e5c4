"""A Ray cluster of two nodes on this machine, each with one core; it ends with its standard input.

Takes a short folder for its files. Writes its address to standard output, then one line for each
command that it has done: `remove` kills the second node, `add` starts another in its place.
"""

import os
import sys
from typing import Any

# Without the first setting, Ray replaces loopback addresses by the machine's own.
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TMPDIR": sys.argv[1],
}

from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "include_dashboard": False,
    "include_log_monitor": False,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 100_000_000,
}
cluster = Cluster(initialize_head=True, head_node_args={**NODE, "no_monitor": True})
second = cluster.add_node(**NODE)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "remove\n":
        cluster.remove_node(second, allow_graceful=False)
    else:
        second = cluster.add_node(**NODE)
    print("done", flush=True)
cluster.shutdown()  # type: ignore[no-untyped-call]
