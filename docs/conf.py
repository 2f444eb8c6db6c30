"""How Sphinx makes the pages. `make docs` builds them; every warning is an error."""

import os
import tempfile
from importlib.metadata import version as installed_version

# The reference is made from the imported package; Airflow writes its settings when it is imported.
_airflow_home = tempfile.TemporaryDirectory(prefix="rayworkflow-docs-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name

project = "airflow-provider-rayworkflow"
author = "The authors of airflow-provider-rayworkflow"
copyright = f"2026, {author}"
release = version = installed_version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # links such as reliability.md#not-guaranteed

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "Ray workflows in Airflow"
html_theme_options = {"navigation_with_keys": True}
