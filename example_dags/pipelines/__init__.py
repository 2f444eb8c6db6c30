"""The example workflows: imported where Ray runs, never while Airflow parses a DAG file."""
