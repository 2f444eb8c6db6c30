// The list of workflows: the counts of the last day come by themselves, so that the list waits for nothing.
"use strict";
(async () => {
  const counts = document.getElementById("counts");
  if (!counts) return;
  const answer = await fetch(`counts?${counts.dataset.query}`);
  // What the server sends as HTML has been escaped there.
  if (answer.ok) counts.innerHTML = await answer.text();
})();
