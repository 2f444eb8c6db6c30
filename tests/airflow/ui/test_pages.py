"""The pages in a real browser, on a real API server.

One file: all of it shares a server.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from urllib.parse import quote, unquote, urlencode

import httpx
import pytest
from browsers import Window, open_browser
from live_airflow import LiveAirflow
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from stored import (
    BIG,
    FAILED,
    HOSTILE,
    OTHERS,
    PRINTED,
    RUNNING,
    SUCCESSFUL,
    Stored,
    hostile_task,
    one,
    opaque,
    origin,
)

from airflow_provider_rayworkflow.workflow.model.failed_tasks import FailedTask, FailedTasks
from airflow_provider_rayworkflow.workflow.model.records import TaskFailure
from airflow_provider_rayworkflow.workflow.storage.keys import quote_id
from airflow_provider_rayworkflow.workflow.storage.mailbox import Mailbox

pytestmark = [pytest.mark.airflow, pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1_800)]

Client = Callable[[str | None], httpx.Client]


@pytest.fixture(scope="module")
def client(airflow: LiveAirflow) -> Iterator[Client]:
    """Asks the server as a user, or as a person who is not logged in."""
    clients: dict[str | None, httpx.Client] = {}

    def make(user: str | None) -> httpx.Client:
        if user not in clients:
            headers = {}
            if user is not None:
                headers["Authorization"] = f"Bearer {airflow.token((user, user))}"
            clients[user] = httpx.Client(
                base_url=f"{airflow.url}/rayworkflow/",
                headers=headers,
                trust_env=False,
                timeout=60,
            )
        return clients[user]

    yield make
    for made in clients.values():
        made.close()


def of(workflow_id: str, **more: str) -> str:
    return urlencode({"conn_id": "ray", "workflow_id": workflow_id, **more}, quote_via=quote)


# ---- who gets what

ROUTES = [
    ("GET", ""),
    ("GET", "workflows?conn_id=ray"),
    ("GET", "counts?conn_id=ray"),
    ("GET", "bulk?conn_id=ray&action=delete"),
    ("POST", "bulk"),
    ("GET", f"workflow?{of(FAILED)}"),
    ("GET", "task_instance?dag_id=ui_flights&run_id=2026-11-24&task_id=daily"),
    ("GET", f"workflow/live?{of(FAILED)}"),
    ("GET", f"workflow/group?{of(FAILED)}&label=x"),
    ("GET", f"workflow/task?{of(FAILED)}&task_id=x"),
    ("GET", f"workflow/log?{of(FAILED)}"),
    ("GET", f"workflow/all_logs?{of(FAILED)}"),
    ("POST", "workflow/action"),
    ("GET", "static/pages.css"),
]


def test_every_route_is_in_the_list_above():
    from airflow_provider_rayworkflow.plugin.web.app import create_app

    paths = {route.path.rstrip("/").replace("{name:path}", "") for route in create_app().routes}
    asked = {"/" + path.partition("?")[0].replace("pages.css", "") for _, path in ROUTES}
    assert paths == {path.rstrip("/") if path == "/" else path for path in asked}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_is_open_to_a_person_who_is_not_logged_in(client: Client, method: str, path: str):
    answer = client(None).request(method, path)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not authenticated"})


def test_a_person_who_is_not_logged_in_is_sent_to_the_login_and_back(
    client: Client, airflow: LiveAirflow
):
    answer = client(None).get(f"workflow?{of(FAILED)}", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    location = unquote(answer.headers["location"])
    assert location.startswith("/auth/login?next=")
    assert location.endswith(f"/rayworkflow/workflow?{unquote(of(FAILED))}")


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("admin", {FAILED, SUCCESSFUL, RUNNING, BIG, HOSTILE, OTHERS}),
        ("operator", {FAILED, SUCCESSFUL, RUNNING, BIG, HOSTILE, OTHERS}),
        # What no task instance started belongs to the connection.
        ("viewer", {FAILED, SUCCESSFUL, RUNNING}),
        ("trips", {SUCCESSFUL}),
    ],
)
def test_each_user_sees_what_their_rights_allow(client: Client, user: str, seen: set[str]):
    listed = client(user).get("workflows?conn_id=ray").text
    every = (FAILED, SUCCESSFUL, RUNNING, BIG, HOSTILE, OTHERS)
    cells = re.findall(r'<td class="id"><a [^>]*>([^<]*)</a>', listed)
    assert {unescape(cell) for cell in cells} == seen
    for name in every:
        for path in ("workflow", "workflow/live"):
            expected = 200 if name in seen else 404
            assert client(user).get(f"{path}?{of(name)}").status_code == expected


def test_a_workflow_that_is_not_there_looks_like_one_that_is_not_theirs(client: Client):
    missing = client("trips").get(f"workflow?{of('no such')}")
    foreign = client("trips").get(f"workflow?{of(FAILED)}")
    assert missing.status_code == foreign.status_code == 404
    assert missing.text == foreign.text


@pytest.mark.parametrize("map_index", ["{MAP_INDEX}", "-1", ""])
def test_a_task_that_is_not_mapped_has_no_index_or_airflows_placeholder(
    client: Client, map_index: str
):
    path = "task_instance?dag_id=ui_flights&run_id=2026-11-24&task_id=daily"
    answer = client("viewer").get(f"{path}&map_index={map_index}")
    assert (answer.status_code, FAILED in answer.text) == (200, True)


def test_a_task_instance_of_a_foreign_dag_says_nothing(client: Client):
    path = "task_instance?dag_id=ui_flights&run_id=2026-11-24&task_id=daily"
    answer = client("trips").get(path)
    assert answer.status_code == 403
    assert FAILED not in answer.text


@pytest.mark.parametrize("conn_id", ["other", "missing"])
@pytest.mark.parametrize("user", ["admin", "trips"])
def test_other_connections_are_as_if_they_were_not_there(client: Client, conn_id: str, user: str):
    listed = client(user).get(f"workflows?conn_id={conn_id}").text
    assert "secret" not in listed
    expected = {
        "admin": "or there is no such Ray workflow connection",
        "trips": "There are no such workflows on this connection, or none that you may see.",
    }[user]
    assert expected in unescape(listed)


@pytest.mark.parametrize("conn_id", ["in_database", "missing"])
def test_a_begin_of_no_page_does_not_tell_whether_a_connection_exists(client: Client, conn_id: str):
    path = f"workflows?conn_id={conn_id}&text=flights&after=x"
    answer = unescape(client("trips").get(path).text)
    assert "There are no such workflows on this connection, or none that you may see." in answer
    for telling in ("not known any more", "Not all workflows were looked at", "Next page"):
        assert telling not in answer


def test_connections_of_airflows_database_are_offered_to_those_who_may_see_them(client: Client):
    offered = {
        user: set(re.findall(r'<option value="([^"]+)"', client(user).get("workflows").text))
        for user in ("admin", "viewer")
    }
    assert offered == {
        "admin": {"in_database", "ray_workflow_default"},
        "viewer": {"ray_workflow_default"},
    }
    listed = client("viewer").get("workflows?conn_id=in_database").text
    assert FAILED in listed


def body(workflow_id: str, action: str, **more: str) -> dict[str, str]:
    return {"conn_id": "ray", "workflow_id": workflow_id, "action": action, **more}


OURS = {"X-RayWorkflow": "1"}


@pytest.mark.parametrize("action", ["suspend", "cancel"])
def test_a_user_who_may_only_see_may_not_act(client: Client, stored: Stored, action: str):
    answer = client("viewer").post("workflow/action", json=body(RUNNING, action), headers=OURS)
    assert answer.status_code == 403
    assert "not act on it" in answer.json()["detail"]
    assert requests_for(stored, RUNNING) == []


def test_a_user_who_may_not_see_may_not_act(client: Client, stored: Stored):
    answer = client("trips").post("workflow/action", json=body(RUNNING, "cancel"), headers=OURS)
    assert answer.status_code == 404
    assert requests_for(stored, RUNNING) == []


@pytest.mark.parametrize(
    "headers",
    [{}, OURS | {"Sec-Fetch-Site": "cross-site"}, OURS | {"Sec-Fetch-Site": "same-site"}],
)
def test_another_site_can_not_act_in_the_name_of_a_user(client, stored, headers):
    answer = client("admin").post("workflow/action", json=body(RUNNING, "cancel"), headers=headers)
    assert answer.status_code == 403
    assert requests_for(stored, RUNNING) == []


def test_a_form_is_no_action(client: Client, stored: Stored):
    answer = client("admin").post("workflow/action", data=body(RUNNING, "cancel"), headers=OURS)
    assert answer.status_code == 422
    assert requests_for(stored, RUNNING) == []


@pytest.mark.parametrize("action", ["delete", "resume", "run_again"])
def test_an_action_that_the_status_does_not_allow_is_refused(client: Client, action: str):
    answer = client("admin").post("workflow/action", json=body(RUNNING, action), headers=OURS)
    assert answer.status_code == 409
    assert "RUNNING now" in answer.json()["detail"]


def requests_for(stored: Stored, workflow_id: str) -> list[str]:
    return [request.how for request in Mailbox(stored.store.bytes).list_requests(workflow_id)]


def test_pages_may_run_no_script_but_their_own_and_stand_in_no_foreign_frame(client: Client):
    headers = client("admin").get(f"workflow?{of(HOSTILE)}").headers
    policy = headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert headers["Cache-Control"] == "no-store"


def test_values_that_are_not_json_are_not_shown_and_not_unpickled(client: Client, stored: Stored):
    stored.run_again("pickled", lambda: opaque.bind(), {})
    live = client("admin").get(f"workflow/live?{of('pickled')}").json()
    [node] = live["graph"]["nodes"]
    task = client("admin").get(f"workflow/task?{of('pickled', task_id=node['task'])}").text
    assert "It is not JSON, and pages unpickle nothing." in task
    client("admin").post("workflow/action", json=body("pickled", "delete"), headers=OURS)


def test_a_workflow_with_several_failures_has_a_table_of_them(client: Client, stored: Stored):
    stored.run_again("failures", lambda: opaque.bind(), {})
    failures = [
        TaskFailure(task_id=f"day_{n}", type="E", message="<b>bad", traceback="") for n in (3, 7)
    ]
    failed = FailedTasks(total=60, first=tuple(FailedTask.of(one, 2) for one in failures))
    stored.change("failures", "FAILED", failure=failures[0], failed_tasks=failed)
    head = client("admin").get(f"workflow/live?{of('failures')}").json()["head"]
    assert "60 tasks failed" in head
    assert '<td class="id"><a href="#" data-task="day_7">day_7</a></td><td>2</td>' in head
    assert "E: &lt;b&gt;bad" in head
    assert "and 58 more" in head
    client("admin").post("workflow/action", json=body("failures", "delete"), headers=OURS)


# ---- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with the file: Playwright keeps an event loop running, and other tests want none."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def window(browser: Browser, airflow: LiveAirflow, request: pytest.FixtureRequest):
    """A function that opens a window for a user; no page in it may report an error."""
    opened: list[tuple[BrowserContext, Window]] = []

    def open_window(user: str = "admin", *, theme: str = "light") -> Window:
        context = browser.new_context(
            viewport={"width": 1280, "height": 800},
            color_scheme=theme,
            timezone_id="UTC",
            locale="en-GB",
        )
        opened.append((context, Window(context, airflow, (user, user))))
        return opened[-1][1]

    yield open_window
    for context, made in opened:
        context.close()
        assert made.problems == []


def shoot(page: Page, name: str) -> None:
    """Make a screenshot for the docs: `make screenshots` says where to."""
    folder = os.environ.get("RAYWORKFLOW_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def rows(page: Page) -> list[str]:
    return page.locator("table.list td.id").all_inner_texts()


def resumed(page: Page) -> Locator:
    """What the panel says of a resume."""
    return page.locator("#panel dl > div", has_text="If it is resumed").locator("dd")


def test_the_list_is_filtered_by_status_and_text(window):
    page = window().open("rayworkflow/workflows?conn_id=ray")
    assert set(rows(page)) == {FAILED, SUCCESSFUL, RUNNING, BIG, HOSTILE, OTHERS}
    assert rows(page)[-2:] == [RUNNING, BIG]  # the newest come first
    page.wait_for_selector("#counts a")
    shoot(page, "ui-workflows")
    page.get_by_label("FAILED", exact=True).check()
    page.get_by_role("button", name="Show").click()
    assert set(rows(page)) == {FAILED, HOSTILE}
    page.get_by_label("Id contains").fill("FLIGHTS")
    page.get_by_role("button", name="Show").click()
    assert rows(page) == [FAILED]
    page.get_by_role("link", name=FAILED).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(FAILED)


def test_the_list_is_sorted_by_a_click_on_a_column(window):
    page = window().open("rayworkflow/workflows?conn_id=ray")
    every = sorted(rows(page), key=quote_id)
    page.get_by_role("columnheader", name="Workflow").get_by_role("link").click()
    assert rows(page) == every[::-1]
    page.get_by_role("columnheader", name="Workflow").get_by_role("link").click()
    assert rows(page) == every


def test_the_counts_of_the_last_day_are_links_to_what_they_count(window):
    page = window().open("rayworkflow/workflows?conn_id=ray")
    page.locator("#counts a", has_text="RUNNING").click()
    assert set(rows(page)) == {RUNNING, BIG}


def test_a_user_who_may_not_see_all_gets_no_counts(client: Client):
    for user in ("viewer", "trips"):
        assert client(user).get("counts?conn_id=ray").status_code == 404
        assert 'id="counts"' not in client(user).get("workflows?conn_id=ray").text


def test_a_failed_workflow_shows_its_graph_and_the_failed_task(window):
    page = window().open_workflow(FAILED)
    assert page.locator(".node .label").all_text_contents() == [
        *("weather", "download", "clean", "download_1", "clean_1", "download_2", "clean_2"),
        *("fit", "report"),
    ]
    # From left to right: inputs before those that take them.
    left = {
        label: page.locator(".node", has_text=re.compile(f"^{label}{label}")).bounding_box()["x"]
        for label in ("download", "clean", "fit", "report")
    }
    assert left["download"] < left["clean"] < left["fit"] < left["report"]
    panel = page.locator("#panel")
    expect(panel.get_by_role("heading", level=2)).to_have_text("fit")  # by itself
    expect(panel).to_contain_text("ValueError: the delays of month 3 have no variance")
    shoot(page, "ui-workflow")
    expect(resumed(page)).to_have_text("runs: it failed")
    page.locator(".node", has_text="download_1").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("download_1")
    expect(panel).to_contain_text('"flights": 27006')
    expect(resumed(page)).to_have_text("keeps its result: its inputs are the same")
    page.get_by_role("link", name="Ray workflows").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ray workflows")


def test_a_running_workflow_shows_what_runs_where_and_keeps_up(window, stored: Stored):
    made = window(theme="dark")
    page = made.open_workflow(RUNNING)
    expect(page.locator(".now")).to_contain_text(
        "2 of 4 tasks done, 1 running (fit), 1 tried again (fit: OSError: no route to host)"
    )
    page.locator(".node", has_text="fit").click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("ray-worker-2")
    expect(panel).to_contain_text(
        "The last attempt failed: OSError: no route to host (application)"
    )
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    shoot(page, "ui-running-dark")
    page.locator(".node", has_text="download").click()
    expect(panel.locator(".line")).to_contain_text(PRINTED)
    page.locator(".node", has_text="fit").click()
    stored.commit(RUNNING, "fit")
    expect(page.locator(".node", has_text="fit")).to_contain_text("done")  # without a reload


def test_the_theme_is_the_one_that_was_chosen_in_airflow(window):
    page = window(theme="light").open("rayworkflow/workflows?conn_id=ray")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_tasks_of_a_returned_graph_stand_behind_their_maker(window):
    page = window().open_workflow(SUCCESSFUL)
    assert page.locator(".edges .makes").count() == 1
    page.locator(".node", has_text="receipt").click()
    expect(page.locator("#panel")).to_contain_text("Made by")
    expect(page.locator("#panel")).to_contain_text('"paid": 1250')


def test_two_thousand_tasks_are_a_few_groups_that_can_be_searched(window):
    page = window().open_workflow(BIG)
    assert page.locator(".node .label").all_text_contents() == ["numbers", "square", "total"]
    page.locator(".node", has_text="square").click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("2000 tasks")
    expect(panel).to_contain_text("page 1 of 20")
    shoot(page, "ui-groups")
    panel.get_by_role("link", name="→").click()
    expect(panel.locator("td.id").first).to_have_text("square_100")
    panel.get_by_label("Id contains").fill("square_199")
    panel.get_by_role("button", name="Show").click()
    expect(panel.locator("td.id")).to_have_count(11)
    panel.get_by_role("link", name="square_1999").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("square_1999")


def test_hostile_names_are_text_and_nothing_else(window):
    made = window()
    page = made.open("rayworkflow/workflows?conn_id=ray")
    page.get_by_role("link", name=HOSTILE).click()
    page.wait_for_selector("main[data-drawn]")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator("#panel").get_by_role("heading", level=2)).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.title() == HOSTILE


# ---- actions in a browser


def test_no_means_no(window, stored: Stored):
    page = window().open_workflow(FAILED)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stored.status(FAILED) == "FAILED"


def test_a_viewer_is_offered_nothing(window):
    page = window("viewer").open_workflow(FAILED)
    assert page.locator("button[data-action]").count() == 0


def test_suspend_leaves_a_request_for_the_manager_that_runs_the_workflow(window, stored: Stored):
    stored.add_running("to suspend")
    made = window("author")  # of the DAG
    made.open_workflow("to suspend")
    assert made.confirm("Suspend").startswith("Suspending")
    assert requests_for(stored, "to suspend") == ["suspend"]
    made.page.close()  # it would look again, and not find it
    stored.delete("to suspend")


def test_cancel_of_an_inactive_workflow_is_done_at_once(window, stored: Stored):
    stored.run_again("to cancel", lambda: hostile_task.bind("x"), {})
    made = window()
    page = made.open_workflow("to cancel")
    assert made.confirm("Cancel") == "The workflow is canceled."
    assert stored.status("to cancel") == "CANCELED"
    expect(page.locator(".head .status")).to_have_text("CANCELED")


def test_delete_deletes_it_and_goes_back_to_the_list(window, stored: Stored):
    hostile = f"{HOSTILE} to delete"
    stored.run_again(hostile, lambda: one.bind(), {})
    page = window().open_workflow(hostile)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ray workflows")
    assert stored.status(hostile) is None
    assert hostile not in rows(page)


def test_all_that_a_filter_selects_is_canceled_after_a_confirmation(window, stored: Stored):
    names = ["many-1", "many-2", "many-3"]
    for name in names:
        stored.run_again(name, lambda: hostile_task.bind("x"), {})
    page = window().open("rayworkflow/workflows?conn_id=ray&text=many-")
    page.get_by_role("link", name="Cancel all").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 3 workflows?")
    expect(page.locator("dl")).to_contain_text("many-")
    assert {stored.status(name) for name in names} == {"FAILED"}
    page.get_by_role("button", name="Cancel 3 workflows").click()
    expect(page.locator("#told")).to_have_text("Done for 3 of 3. 0 failed.")
    assert {stored.status(name) for name in names} == {"CANCELED"}
    for name in names:
        stored.delete(name)


def test_a_viewer_is_offered_no_action_on_all(client: Client, stored: Stored):
    assert "bulk?" not in client("viewer").get("workflows?conn_id=ray").text
    asked = client("viewer").get("bulk?conn_id=ray&action=cancel").text
    assert "The filter selects no workflow that you can cancel now" in asked
    body = {"conn_id": "ray", "action": "cancel", "before": time.time(), "most": 100}
    answer = client("viewer").post("bulk", json=body, headers=OURS)
    assert answer.json() == {"done": 0, "clears": [], "failures": [], "next": ""}
    assert stored.status(FAILED) == "FAILED"


@pytest.mark.parametrize("headers", [{}, OURS | {"Sec-Fetch-Site": "cross-site"}])
def test_another_site_can_not_act_on_many(client: Client, stored: Stored, headers: dict[str, str]):
    body = {"conn_id": "ray", "action": "cancel", "before": time.time(), "most": 100}
    assert client("admin").post("bulk", json=body, headers=headers).status_code == 403
    assert stored.status(FAILED) == "FAILED"


def test_resume_clears_the_task_instance(window, airflow: LiveAirflow):
    of_task = ("ui_flights", "2026-11-24", "daily")
    airflow.mark(*of_task, "failed")
    made = window("author")
    made.open_workflow(FAILED)
    assert made.confirm("Resume").startswith("The task instance is cleared")
    assert airflow.state(*of_task)[0] is None


def test_resume_says_when_the_task_instance_is_gone(window, stored: Stored):
    gone = {"airflow": origin("ui_flights", "daily", "no such run")}
    stored.run_again("of a deleted run", lambda: hostile_task.bind("x"), gone)
    made = window()
    made.open_workflow("of a deleted run")
    assert made.confirm("Resume").startswith("Airflow did not clear the task instance")
    made.page.close()
    stored.delete("of a deleted run")
    assert len(made.problems) == 1  # the browser notes that Airflow has answered with 404
    made.problems.clear()


def test_run_again_from_a_task_gives_up_its_checkpoint_and_those_that_depend_on_it(
    window, airflow: LiveAirflow, stored: Stored
):
    of_task = ("ui_trips", "2026-11-23", "book")
    airflow.mark(*of_task, "success")
    made = window("author")
    page = made.open_workflow(SUCCESSFUL)
    page.locator(".node", has_text="pay").click()
    assert made.confirm("Run again from here").startswith("The task instance is cleared")
    assert stored.status(SUCCESSFUL) == "RESUMABLE"
    assert airflow.state(*of_task)[0] is None
    expect(page.locator(".node", has_text="pay")).to_contain_text("has not run")
    expect(resumed(page)).to_have_text("runs: restarted from it")
    expect(page.locator(".node", has_text="book_1")).to_contain_text("done")


# ---- inside of Airflow's own pages


def test_the_list_is_a_page_of_airflow(window):
    page = window().open("plugin/ray_workflows")
    frame = page.frame_locator("iframe")
    frame.get_by_label("Connection").fill("ray")
    frame.get_by_role("button", name="Show").click()
    frame.get_by_role("link", name=FAILED).click()
    expect(frame.locator("main[data-drawn]")).to_be_attached()
    expect(frame.locator(".node")).to_have_count(9)
    # The address has the place of the frame: a user can send it to another one.
    expect(page).to_have_url(re.compile("plugin/ray_workflows/rayworkflow/workflow"))
    frame.get_by_role("link", name="ui_flights").click()
    expect(page).to_have_url(re.compile("/dags/ui_flights/runs/2026-11-24/tasks/daily$"))


def test_a_task_instance_has_its_workflow_as_a_tab(window):
    page = window().open("dags/ui_flights/runs/2026-11-24/tasks/daily")
    page.get_by_role("link", name="Ray workflow", exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.locator(".node")).to_have_count(9)
    expect(frame.get_by_role("heading", level=1)).to_have_text(FAILED)
    assert frame.get_by_role("link", name="Ray workflows").count() == 0
    shoot(page, "ui-task-instance")


def test_a_task_instance_without_a_workflow_says_so_kindly(window):
    page = window().open("dags/ui_plain/runs/r/tasks/none")
    page.get_by_role("link", name="Ray workflow", exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", level=1)).to_have_text("No Ray workflow")
