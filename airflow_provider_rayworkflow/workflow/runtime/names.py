"""The manager's name on a cluster, as in Ray Workflows."""

ACTOR_NAME = "WorkflowManagementActor"
NAMESPACE = "workflow"
