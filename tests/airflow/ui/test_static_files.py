"""What the wheel brings along for the browser."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from airflow_provider_rayworkflow.plugin import web

STATIC = Path(web.__file__).parent / "static"
TEMPLATES = Path(web.__file__).parent / "templates"


def test_the_layout_library_is_the_one_of_the_registry():
    """dist/dagre.min.js of @dagrejs/dagre 3.1.3; see its README."""
    content = (STATIC / "vendor" / "dagre.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == (
        "54a503e346f93ca0bb10abe7999587e037262935687aca45eb4e4b0f64bbb578"
    )


def test_nothing_is_loaded_from_elsewhere():
    ours = [*STATIC.glob("*.js"), *STATIC.glob("*.css"), *TEMPLATES.glob("*.html")]
    assert len(ours) > 10
    for file in ours:
        found = set(re.findall(r"https?://[^\s\"']+", file.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, file


def test_templates_have_no_inline_scripts_or_styles_which_the_policy_forbids():
    for file in TEMPLATES.glob("*.html"):
        text = file.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|<style|\| *safe", text), (
            file
        )


def test_the_plugin_module_imports_neither_the_pages_nor_ray():
    code = (
        "import sys; import airflow.plugins_manager; before = set(sys.modules)\n"
        "import airflow_provider_rayworkflow.plugin as plugin\n"
        "plugin.RayWorkflowPlugin().external_views\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'ray', 'pyarrow', 'obstore', 'fastapi', 'jinja2', 'cloudpickle'}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert answer.stdout == "[]\n"
