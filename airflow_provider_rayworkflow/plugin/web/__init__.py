"""The pages as a FastAPI app. Only Airflow's API server imports this."""
