"""The page to try a student beside its teacher, in a real browser."""

import asyncio

import httpx
import pytest

from core.recipe_section import Device
from core.recipe_serving import ApiKeys, Serve
from serving.application import deploy
from serving.page import Page, Side
from stillhouse.key_file import add_key
from tests.browser import CHROMIUM, open_page
from tests.students import CHOICES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install it")

PLAIN = Serve(port=0, device=Device(cpus=0.1))
TEXT = "Late goal </script> sends <b>underdogs</b> into the cup final"


def page_of(*sides, choices=None, needs_key=False):
    return Page(
        "News desk </script>", "Headline", choices, 200, needs_key, list(sides), "Invented."
    )


async def ask(tab, **fields):
    for name, value in fields.items():
        await tab.run(f"document.getElementById({name!r}).value = {value!r}")
    await tab.run("document.querySelector('button').click()")
    await tab.until("!document.querySelector('button').disabled")


async def shown(tab, role):
    """What a side shows: its label, its bars, its latency and its cost."""
    return await tab.run(
        f"""(() => {{
            const side = document.getElementById({role!r});
            const text = query => side.querySelector(query).textContent;
            const bars = [...side.querySelectorAll("li")].map(item =>
                [item.firstChild.textContent, parseFloat(item.lastChild.textContent)]);
            return {{label: text(".label"), wrong: side.querySelector(".wrong") !== null, bars,
                latency: text(".latency"), cost: text(".cost"),
                hidden: side.querySelector("dl").hidden}};
        }})()"""
    )


def test_student_and_teacher_answer_side_by_side(students, tmp_path):
    sides = (Side("small", "student", "$0.0000004"), Side("large", "teacher", "$0.000005"))
    running = deploy(
        {"small": students["first"], "large": students["second"]},
        PLAIN,
        name="desk",
        page=page_of(*sides, choices=CHOICES),
    )

    async def visit():
        async with open_page(f"{running.url}/try", tmp_path / "profile") as tab:
            await ask(tab, text=TEXT)
            found = {side.role: await shown(tab, side.role) for side in sides}
            await tab.screenshot(tmp_path / "page.png")
            await ask(tab, text=" ")
            refused = await shown(tab, "student")
            assert tab.errors == [] or all("422" in error for error in tab.errors), tab.errors
            return found, refused

    try:
        found, refused = asyncio.run(visit())
        for side in sides:
            body = {"model": side.name, "input": TEXT}
            answer = httpx.post(f"{running.url}/v1/classify", json=body).json()["results"][0]
            told = found[side.role]
            assert told["label"] == answer["label"]
            assert [name for name, _ in told["bars"]] == CHOICES
            for name, share in told["bars"]:
                assert share == pytest.approx(100 * answer["probabilities"][name], abs=0.06)
            assert told["latency"].endswith(" ms")
            assert float(told["latency"].split()[0]) > 0
            assert told["cost"] == side.cost
        assert refused["wrong"]
        assert "the text is empty" in refused["label"]
        assert refused["hidden"]
    finally:
        running.close()


@pytest.mark.slow
def test_questions_bring_their_choices_and_callers_their_key(students, tmp_path):
    key = add_key(tmp_path / "keys.yaml", "visitor", None)
    keyed = PLAIN.model_copy(update={"api_keys": ApiKeys(file=str(tmp_path / "keys.yaml"))})
    running = deploy(
        {"chooser": students["chooser"]},
        keyed,
        name="keyed",
        page=page_of(Side("chooser", "student", "unknown"), needs_key=True),
    )

    async def visit():
        async with open_page(f"{running.url}/try", tmp_path / "profile") as tab:
            await ask(tab, text="Where is it?", choices="here\nthere\n\nnowhere", key="wrong")
            refused = await shown(tab, "student")
            await ask(tab, key=key)
            return refused, await shown(tab, "student")

    try:
        refused, told = asyncio.run(visit())
        assert refused["wrong"]
        assert "not known" in refused["label"]
        assert [name for name, _ in told["bars"]] == ["here", "there", "nowhere"]
        assert told["label"] in ("here", "there", "nowhere")
        assert sum(share for _, share in told["bars"]) == pytest.approx(100, abs=0.2)
    finally:
        running.close()
