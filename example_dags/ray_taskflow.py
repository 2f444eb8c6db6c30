"""A TaskFlow function whose body returns a workflow's graph; it uses a helper of its DAG file."""

from airflow.sdk import DAG, task

from airflow_provider_rayworkflow import workflow


def words_of(line: str) -> list[str]:
    return line.lower().split()


@workflow.task
def count(line: str, word: str) -> int:
    return words_of(line).count(word)


@workflow.task
def total(word: str, counts: list[int]) -> dict[str, int]:
    return {word: sum(counts)}


with DAG("ray_taskflow", schedule=None, params={"word": "fish"}):

    @task
    def lines() -> list[str]:
        return ["One fish two fish", "Red fish blue fish"]

    @task.ray_workflow(retries=2)
    def count_words(lines: list[str], word: str):
        return total(word, [count(line, word) for line in lines])

    count_words(lines(), word="{{ params.word }}")
