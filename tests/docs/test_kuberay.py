"""The manifests for KubeRay are well formed, and have no field that a RayCluster does not know.

The names are those of KubeRay's API reference (ray.io/v1) and Kubernetes' Pod and Container.
"""

import re
from pathlib import Path

import pytest
import yaml

from airflow_provider_rayworkflow.workflow.storage import STORAGE_VARIABLE

KUBERAY = Path(__file__).parents[2] / "docs" / "kuberay"

SPEC = {
    "rayVersion",
    "authOptions",
    "gcsFaultToleranceOptions",
    "enableInTreeAutoscaling",
    "headGroupSpec",
    "workerGroupSpecs",
}
WORKER_GROUP = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
}
POD = {"serviceAccountName", "containers", "terminationGracePeriodSeconds"}
CONTAINER = {"name", "image", "env", "ports", "resources"}


@pytest.fixture(scope="module")
def manifests():
    return list(yaml.safe_load_all((KUBERAY / "raycluster.yaml").read_text()))


@pytest.fixture(scope="module")
def cluster(manifests):
    return manifests[-1]


@pytest.fixture(scope="module")
def pods(cluster):
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_they_are_two_secrets_and_a_cluster(manifests):
    kinds = [(manifest["apiVersion"], manifest["kind"]) for manifest in manifests]
    assert kinds == [("v1", "Secret"), ("v1", "Secret"), ("ray.io/v1", "RayCluster")]


def test_the_cluster_has_known_fields_only(cluster, pods):
    assert set(cluster["spec"]) == SPEC
    assert set(cluster["spec"]["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert set(group) == WORKER_GROUP
    for pod in pods:
        assert set(pod) <= POD
        for container in pod["containers"]:
            assert set(container) <= CONTAINER


def test_the_token_and_the_redis_password_are_in_secrets_that_exist(manifests, cluster):
    secrets = {manifest["metadata"]["name"]: manifest["stringData"] for manifest in manifests[:2]}
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert "auth_token" in secrets[spec["authOptions"]["secretName"]]  # the key that KubeRay reads
    reference = spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert reference["key"] in secrets[reference["name"]]


def test_all_pods_have_the_same_storage_image_and_account(pods):
    assert len({pod["serviceAccountName"] for pod in pods}) == 1
    containers = [container for pod in pods for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    assert [variable["name"] for pod in containers for variable in pod["env"]] == [
        STORAGE_VARIABLE,
        STORAGE_VARIABLE,
    ]


def test_ray_parameters_are_text_and_tasks_stay_off_the_head(cluster):
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_the_image_has_the_ray_that_the_cluster_says(cluster):
    dockerfile = (KUBERAY / "Dockerfile").read_text()
    assert re.findall(r"rayproject/ray:([\d.]+)-py", dockerfile) == [cluster["spec"]["rayVersion"]]
