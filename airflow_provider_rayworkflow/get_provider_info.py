"""What Airflow asks of a provider. Read by each of its processes when it starts, so: no imports."""

Json = dict[str, object]


def get_provider_info() -> Json:
    """Everything that this distribution adds to Airflow."""
    return {
        "package-name": "airflow-provider-rayworkflow",
        "name": "Ray Workflow",
        "description": "Durable Ray workflows: a retry resumes where the workflow stopped.",
        "integrations": [
            {
                "integration-name": "Ray Workflow",
                "external-doc-url": "https://docs.ray.io/",
                "tags": ["service"],
            }
        ],
        "operators": _modules("operators"),
        "hooks": _modules("hooks"),
        "sensors": _modules("sensors"),
        "triggers": _modules("triggers"),
        "task-decorators": [
            {
                "name": "ray_workflow",
                "class-name": "airflow_provider_rayworkflow.decorators.ray_workflow_task",
            }
        ],
        "extra-links": [
            "airflow_provider_rayworkflow.links.RayWorkflowLink",
            "airflow_provider_rayworkflow.links.RayDashboardLink",
        ],
        "connection-types": [_CONNECTION_TYPE],
        "plugins": [
            {
                "name": "rayworkflow",
                "plugin-class": "airflow_provider_rayworkflow.plugin.RayWorkflowPlugin",
            }
        ],
    }


def _modules(name: str) -> list[Json]:
    modules = [f"airflow_provider_rayworkflow.{name}"]
    return [{"integration-name": "Ray Workflow", "python-modules": modules}]


_CONNECTION_TYPE: Json = {
    "connection-type": "ray_workflow",
    "hook-class-name": "airflow_provider_rayworkflow.hooks.RayWorkflowHook",
    "hook-name": "Ray Workflow",
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema"],
        "relabeling": {"host": "Ray dashboard URL", "password": "Ray token"},
        "placeholders": {
            "host": "http://ray-head:8265; empty: Ray runs on Airflow's machine",
            "password": "of a cluster with RAY_AUTH_MODE=token",
        },
    },
    # Kept in the connection's extra under these names; connection.settings.EXTRAS reads them.
    "conn-fields": {
        "storage": {
            "label": "Workflow storage",
            "description": "Absolute path or URI where workflows are stored, the same for every "
            "machine that may run a task of this connection, and for the cluster. Without a "
            "cluster it may be empty: then the environment variable RAY_WORKFLOW_STORAGE counts, "
            "else a folder of this machine.",
            "schema": {"type": ["string", "null"]},
        },
        "storage_conn_id": {
            "label": "Storage connection",
            "description": "An AWS, Google or Azure connection of Airflow, with whose credentials "
            "Airflow's side reaches the workflow storage. The cluster uses its own.",
            "schema": {"type": ["string", "null"]},
        },
        "namespace": {
            "label": "Namespace",
            "description": "Stands in front of the ids of this Airflow's workflows. Needed where "
            "several Airflows share a storage.",
            "schema": {"type": ["string", "null"]},
        },
        "signing_secret": {
            "label": "Signing secret",
            "description": "All documents in the storage are signed with this text, and refused "
            "without its signature. A cluster's nodes have it as RAY_WORKFLOW_SIGNING_KEY.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "retention": {
            "label": "Retention (days by status)",
            "description": 'A JSON object such as {"SUCCESSFUL": 30, "FAILED": 90}: managers delete '
            "workflows that ended longer ago by themselves. Empty: nothing is deleted.",
            "schema": {"type": ["string", "null"]},
        },
        "num_cpus": {
            "label": "CPUs",
            "description": "How many CPUs the local Ray may use, which all tasks of a machine "
            "share. Without it: all of the machine's.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "num_gpus": {
            "label": "GPUs",
            "description": "How many GPUs the local Ray may use. Without it: all that Ray finds.",
            "schema": {"type": ["integer", "null"], "minimum": 0},
        },
        "object_store_memory_mb": {
            "label": "Object store (MB)",
            "description": "Shared memory for values that pass between workflow tasks. Without "
            "it: as much as Ray takes by itself, about 30 % of the machine's memory.",
            "schema": {"type": ["integer", "null"], "minimum": 80},
        },
        "local_idle_s": {
            "label": "Local Ray stays (s)",
            "description": "How long the local Ray stays when nothing is left to do. 0: it ends "
            "with the last workflow.",
            "schema": {"type": ["number", "null"], "minimum": 0, "default": 120},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "Check the certificate of an https cluster.",
            "schema": {"type": ["boolean", "null"], "default": True},
        },
        "ca": {
            "label": "CA bundle",
            "description": "Path of a file with the certificates to trust, on Airflow's machines.",
            "schema": {"type": ["string", "null"]},
        },
        "headers": {
            "label": "Headers",
            "description": "A JSON object of further HTTP headers for the cluster.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "timeout_s": {
            "label": "Timeout (s)",
            "description": "Of one request to the cluster.",
            "schema": {"type": ["number", "null"], "default": 30},
        },
    },
}
