// Has done what is confirmed for many workflows: a batch after the other, so that each is answered in time.
"use strict";
(() => {
  const FAILURES_SHOWN = 20;
  const main = document.getElementById("bulk");
  const told = document.getElementById("told");
  const failures = document.getElementById("failures");
  const count = Number(main.dataset.count);
  const batch = Number(main.dataset.batch);
  const number = (value) => value.toLocaleString("en");
  let done = 0;
  let failed = 0;

  function fail(workflowId, reason) {
    failed += 1;
    if (failed > FAILURES_SHOWN) return;
    const item = failures.appendChild(document.createElement("li"));
    item.className = "id";
    item.textContent = `${workflowId}: ${reason}`;
  }

  async function actOn(after, most) {
    const answer = await fetch("bulk", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-RayWorkflow": "1" },
      body: JSON.stringify({ ...JSON.parse(main.dataset.body), after, most }),
    });
    if (!answer.ok) throw new Error(await page.problem(answer));
    return answer.json();
  }

  async function clear({ workflow_id, dag_id, run_id, task_id, map_index }) {
    try {
      await page.clear({ dagId: dag_id, runId: run_id, taskId: task_id, mapIndex: map_index });
      done += 1;
    } catch (error) {
      fail(workflow_id, error.message);
    }
  }

  async function actOnAll() {
    // Workflows that have gone meanwhile leave batches empty.
    const mostBatches = 20 + count / batch;
    let after = "";
    for (let batches = 0; done + failed < count && batches < mostBatches; batches += 1) {
      told.textContent = `${number(done + failed)} of ${number(count)} …`;
      const answer = await actOn(after, Math.min(batch, count - done - failed));
      done += answer.done;
      answer.failures.forEach(([workflowId, reason]) => fail(workflowId, reason));
      for (const one of answer.clears) await clear(one);
      after = answer.next;
      if (!after) break;
    }
  }

  const yes = document.querySelector("[data-yes]");
  yes?.addEventListener("click", async ({ target }) => {
    target.closest(".choice").remove();
    let problem = "";
    try {
      await actOnAll();
    } catch (error) {
      problem = ` It ended early: ${error.message}`;
    }
    const shown = failed > FAILURES_SHOWN ? `; the first ${FAILURES_SHOWN} are below` : "";
    told.textContent = `Done for ${number(done)} of ${number(count)}. ${number(failed)} failed${shown}.${problem}`;
    told.classList.toggle("problem", Boolean(failed || problem));
    main.dataset.ended = "";
  });
  if (yes) yes.disabled = false; // a click before this would do nothing
})();
