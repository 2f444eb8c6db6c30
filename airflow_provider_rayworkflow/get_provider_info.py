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
        "operators": [
            {
                "integration-name": "Ray Workflow",
                "python-modules": ["airflow_provider_rayworkflow.operators"],
            }
        ],
        "hooks": [
            {
                "integration-name": "Ray Workflow",
                "python-modules": ["airflow_provider_rayworkflow.hooks"],
            }
        ],
        "connection-types": [_CONNECTION_TYPE],
    }


_CONNECTION_TYPE: Json = {
    "connection-type": "ray_workflow",
    "hook-class-name": "airflow_provider_rayworkflow.hooks.RayWorkflowHook",
    "hook-name": "Ray Workflow",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "port", "login", "password", "schema"],
        "relabeling": {},
        "placeholders": {},
    },
    # Kept in the connection's extra under these names; hooks.ConnectionSettings reads them.
    "conn-fields": {
        "storage": {
            "label": "Workflow storage",
            "description": "Absolute path or URI where workflows are stored, the same for every "
            "machine that may run a task of this connection. Without it: the environment "
            "variable RAY_WORKFLOW_STORAGE, else a folder of this machine.",
            "schema": {"type": ["string", "null"]},
        },
        "num_cpus": {
            "label": "CPUs",
            "description": "How many CPUs Ray may use in a task. Without it: all of the machine's.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "object_store_memory_mb": {
            "label": "Object store (MB)",
            "description": "Shared memory for values that pass between workflow tasks. Without "
            "it: as much as Ray takes by itself, about 30 % of the machine's memory.",
            "schema": {"type": ["integer", "null"], "minimum": 80},
        },
    },
}
