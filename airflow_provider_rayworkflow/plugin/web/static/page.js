// Of every page: times in the reader's time zone, and links that leave the frame.
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
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-top]");
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    page.leave(link.href);
  }
});
page.localTimes(document);
