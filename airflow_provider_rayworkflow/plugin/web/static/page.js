// Of every page: times in the reader's time zone, links that leave the frame, and what Airflow is asked.
"use strict";
const page = {
  localTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.valueOf())) {
        time.title = time.textContent;
        time.textContent = at.toLocaleString();
      }
    }
  },

  // Airflow shows pages in a frame that may not navigate the window around it; a link of that
  // window may.
  leave(href) {
    if (window.parent === window) {
      window.location.href = href;
      return;
    }
    const link = window.parent.document.createElement("a");
    link.href = href;
    window.parent.document.body.append(link);
    link.click();
    link.remove();
  },

  // What an answer says that is none.
  async problem(answer) {
    try {
      const { detail } = await answer.json();
      return typeof detail === "string" ? detail : JSON.stringify(detail);
    } catch {
      return `The server says ${answer.status} ${answer.statusText}`;
    }
  },

  // Clears a task instance by Airflow's own API, so with the rights that the user has there.
  async clear({ dagId, runId, taskId, mapIndex }) {
    const task = Number(mapIndex) < 0 ? taskId : [taskId, Number(mapIndex)];
    const path = `../api/v2/dags/${encodeURIComponent(dagId)}/clearTaskInstances`;
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        dry_run: false,
        dag_run_id: runId,
        task_ids: [task],
        only_failed: false,
        reset_dag_runs: true,
      }),
    });
    if (!answer.ok) {
      throw new Error(`Airflow did not clear the task instance: ${await page.problem(answer)}`);
    }
    const { total_entries: cleared } = await answer.json();
    if (!cleared) throw new Error("The task instance is not there any more, so nothing was cleared.");
  },
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-top]");
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    page.leave(link.href);
  }
});
page.localTimes(document);
