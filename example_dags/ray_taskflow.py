"""A TaskFlow function whose body returns a workflow's graph; it uses a helper of its DAG file."""

from airflow.sdk import DAG, task


def words_of(line: str) -> list[str]:
    return line.lower().split()


with DAG("ray_taskflow", schedule=None, params={"word": "fish"}):

    @task
    def lines() -> list[str]:
        return ["One fish two fish", "Red fish blue fish"]

    @task.ray_workflow(retries=2)
    def count_words(lines: list[str], word: str):
        import ray

        @ray.remote
        def count(line):
            return words_of(line).count(word)

        @ray.remote
        def total(*counts):
            return {word: sum(counts)}

        return total.bind(*[count.bind(line) for line in lines])

    count_words(lines(), word="{{ params.word }}")
