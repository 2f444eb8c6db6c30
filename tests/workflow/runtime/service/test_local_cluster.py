"""What Ray leaves on the machine when a local Ray has ended."""

import secrets
import subprocess
import sys

PROGRAM = """
import os, sys
import ray
from airflow_provider_rayworkflow.workflow.local_ray.cluster import Size
from airflow_provider_rayworkflow.workflow.runtime.service.local_cluster import RayOfMachine

cluster = RayOfMachine()
started = cluster.start(
    Size(num_cpus=1, num_gpus=0, object_store_memory_mb=80), token_file=sys.argv[1]
)
folder = ray._private.worker._global_node.get_session_dir_path()
assert os.path.basename(folder) == started.cluster_id
assert os.listdir(folder)
cluster.stop()
print("left" if os.path.exists(folder) else "gone")
"""


def test_a_local_ray_that_has_ended_leaves_no_folder_of_its_session(tmp_path):
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(token)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "gone\n"
