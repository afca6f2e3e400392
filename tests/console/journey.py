"""A person at the console's pages, in headless Chromium, from an upload to a decided test.

`python -m tests.console.journey FOLDER` goes the whole way against a platform of its own, and takes a picture of each
step into FOLDER.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.gateway.browser import install

AXE = Path(__file__).with_name("vendor") / "axe-core-4.14.1.min.js"
LATER = 300_000
"""Milliseconds that a busy machine has for what takes seconds."""
WIDE, NARROW = {"width": 1100, "height": 760}, {"width": 400, "height": 800}
STEPS_OF_TRAINING = {"학습률": "2e-3", "배치 크기": "16", "에폭": "40", "최대 단계": "40", "행의 최대 토큰": "128"}


class Journey:
    """One person's way through the pages.

    `faults` are what a page complained of (scripts, its policy, answers) and what a reader of screens would miss in it.
    `pictures`, a folder, gets a picture of each step; without it none are taken.
    """

    def __init__(self, page: Page, base: str, pictures: Path | None = None) -> None:
        self.page, self.base, self.pictures = page, base, pictures
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        page.on("dialog", lambda dialog: dialog.accept())

    def go(self, path: str) -> None:
        self.page.goto(f"{self.base}{path}", wait_until="load")

    def picture(self, name: str, whole: bool = True) -> None:
        """Look at what is shown as a reader of screens does; keep a picture of it where pictures are wanted."""
        self.faults += [f"{name}: {fault}" for fault in barriers(self.page)]
        if self.pictures:
            if whole:
                self.page.evaluate("window.scrollTo(0, 0)")
            self.page.screenshot(path=self.pictures / f"console-{name}.png", full_page=whole)

    def state(self, wanted: str) -> None:
        """Wait until the page says so by itself: nobody reloads it."""
        expect(self.page.locator("#state")).to_have_attribute("data-state", wanted)

    def said(self, text: str | re.Pattern[str]) -> Locator:
        found = self.page.get_by_text(text).first
        expect(found).to_be_visible()
        return found

    def upload(self, rows: Path, name: str) -> None:
        """A file whose columns nobody recognises: they are mapped, and the preview follows."""
        page = self.page
        self.go("/")
        page.get_by_role("link", name="데이터셋", exact=True).click()
        page.get_by_role("link", name="데이터셋 올리기").first.click()
        page.get_by_label("이름").fill(name)
        page.get_by_label("데이터를 책임지는 팀").fill("toll")
        page.get_by_label("행의 종류").select_option("sft_pair")
        page.get_by_label("파일").set_input_files(rows)
        self.picture("upload")
        page.get_by_role("button", name="올리고 살펴보기").click()
        expect(page.get_by_role("button", name="이 파일들을 등록")).to_be_disabled()
        page.get_by_label("question", exact=True).select_option("고객 문의")
        page.get_by_label("answer", exact=True).select_option("상담 내용")
        expect(page.get_by_role("button", name="이 파일들을 등록")).to_be_enabled()
        expect(page.locator("#outcome")).to_contain_text("120")
        self.picture("mapping")
        page.get_by_role("button", name="이 파일들을 등록").click()

    def read_the_report(self) -> None:
        page = self.page
        self.state("ready")
        report = page.frame_locator("iframe.report")
        expect(report.locator("svg, img").first).to_be_visible()
        page.locator("iframe.report").scroll_into_view_if_needed()
        # A picture of the whole page has no frame that was never in view.
        self.picture("dataset", whole=False)
        page.get_by_role("link", name="거절된 행").click()
        self.said("거절된 행이 없습니다")
        page.go_back()

    def train(self, dataset: str, base: str) -> str:
        """Fill the form, see a fault beside its field and mend it, watch the curve; the model's name."""
        page = self.page
        page.get_by_role("link", name="이 데이터로 학습").click()
        page.get_by_label("출발 모델").select_option(base)
        expect(page.get_by_label("데이터셋")).to_have_value(dataset)
        page.get_by_label("학습률", exact=True).fill("5")
        expect(page.locator("#lr-fault")).not_to_be_empty()
        self.picture("training-fault", whole=False)
        for label, value in STEPS_OF_TRAINING.items():
            page.get_by_label(label, exact=True).fill(value)
        expect(page.locator("#verdict .banner.good")).to_be_visible()
        expect(page.locator("#lr-fault")).to_be_empty()
        self.picture("training-form")
        page.get_by_role("button", name="이 학습을 요청").click()
        expect(page.locator("#curve canvas")).to_be_visible()
        expect(page.locator("#log")).not_to_be_empty()
        self.picture("training-live")
        self.state("registered")
        expect(page.locator("#curve canvas")).to_be_visible()
        self.said("GPU를 쓰기 전에 세운 계획")
        self.picture("training-done")
        page.get_by_role("link", name="모델 보기").click()
        return page.get_by_role("heading", level=1).inner_text()

    def approve(self) -> None:
        # Its gate was met, so it is in staging already: a person looks at the evidence, and decides on production.
        promote = self.page.get_by_role("button", name="프로덕션으로 승격")
        expect(promote).to_be_enabled()
        self.picture("model", whole=False)
        promote.click()
        self.said("모델이 승격되었습니다")
        self.state("production")

    def deploy_beside(self, model: str, endpoint: str) -> None:
        """Half of an endpoint's users get the new model."""
        page = self.page
        page.get_by_role("link", name="배포", exact=True).click()
        expect(page.get_by_label("모델", exact=True)).to_have_value(model)
        page.get_by_label("엔드포인트", exact=True).fill(endpoint)
        page.get_by_label("새 모델로 바꾸는 방법").select_option("canary")
        page.get_by_label("카나리 비율").fill("50")
        page.get_by_text("더 많은 설정").click()
        # What was trained for seconds doesn't know when to end.
        page.get_by_label("답의 최대 토큰").fill("16")
        expect(page.locator("#verdict .banner.good")).to_be_visible()
        self.picture("deploy")
        page.get_by_role("button", name="배포", exact=True).click()
        expect(page.locator("#endpoint progress")).to_have_count(2)
        halves = page.locator("#endpoint p").filter(has_text=re.compile(r"@\d+: 50 %\s*$"))
        expect(halves).to_have_count(2)
        self.state("healthy")
        self.picture("endpoint")

    def chat_and_rate(self) -> None:
        """One conversation as a person has it."""
        page = self.page
        page.get_by_role("link", name="대화", exact=True).click()
        page.get_by_label("메시지").fill("환불은 어떻게 하나요?")
        page.get_by_label("메시지").press("Enter")
        stars = page.locator("fieldset.rate").last
        stars.get_by_role("button", name="4 / 5").click()
        expect(stars.get_by_role("status")).to_be_visible()
        self.picture("chat")

    def start_a_test(self, control: str, treatment: str, name: str) -> None:
        """Have both models compared by what users say, once its power is known."""
        page = self.page
        page.get_by_role("link", name="엔드포인트로 돌아가기").click()
        page.get_by_role("link", name="두 모델을 A/B 시험으로 비교").click()
        expect(page.get_by_label("지금의 모델 (a)")).to_have_value(control)
        expect(page.get_by_label("바꿀 후보 모델 (b)")).to_have_value(treatment)
        page.get_by_label("이름").fill(name)
        # A day is what users get; these rate at once.
        page.get_by_label("사용자가 평가할 수 있는 시간").fill("0.003")
        page.get_by_label("하루에 평가하는 사용자 수").fill("100")
        expect(page.locator("#verdict dl")).to_be_visible()
        page.get_by_label("결정을 스스로 시행").uncheck()
        self.picture("ab-form")
        page.get_by_role("button", name="시험 시작").click()
        self.state("running")

    def see_the_sequence(self, others: Callable[[int], None]) -> None:
        """Look at the sequence, which comes by itself as `others` rate: as many as are in time on a busy machine."""
        shown = self.page.locator("#sequence canvas")
        for batch in range(8):
            others(batch)
            with suppress(AssertionError):
                expect(shown).to_be_visible(timeout=LATER / 10)
                break
        expect(shown).to_be_visible()
        self.picture("ab-live")

    def conclude(self, endpoint: str) -> None:
        """Decide, whatever the figures say yet."""
        page = self.page
        page.get_by_role("button", name="모든 사용자를 b로").click()
        self.state("concluded")
        expect(page.locator("#decision")).to_have_attribute("data-decision", "promote")
        self.picture("ab-concluded")
        page.get_by_role("link", name=endpoint).click()
        expect(page.locator("#endpoint progress")).to_have_count(1)
        self.state("healthy")

    def tab_to(self, name: str) -> None:
        """Press Tab until what has the focus is named so, by its label or text; all that is passed shows its focus."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            found, outline = self.page.evaluate(
                "[(document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim(),"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert outline != "none", f"{found} does not show that it has the focus"
            if found == name:
                return
        raise AssertionError(f"Tab does not come to {name}")

    def enter_a_model_by_keyboard(self, name: str, files: Path) -> None:
        """A base model is entered and approved with Tab, Enter and letters alone."""
        keys = self.page.keyboard
        self.go("/catalog/models/create")
        self.tab_to("본문으로 건너뛰기")
        keys.press("Enter")
        for label, text in {"이름": name, "계열": "llama", "파일": str(files)}.items():
            self.tab_to(label)
            keys.type(text)
        self.tab_to("초안으로 넣기")
        keys.press("Enter")
        self.state("draft")
        expect(self.page.get_by_role("button", name="승인")).to_be_enabled()
        self.tab_to("승인")
        keys.press("Enter")
        self.state("approved")

    def look_around(self) -> None:
        """Every list, dark and narrow too: nothing is wider than the screen."""
        lists = {
            "home": "/",
            "datasets": "/catalog/datasets",
            "trainings": "/training/jobs",
            "experiments": "/training/experiments",
            "models": "/catalog/models",
            "endpoints": "/serving/endpoints",
            "tests": "/ab-tests",
            "reviews": "/reviews",
            "usage": "/usage?by=endpoint,day",
            "audit": "/audit",
            "forget": "/catalog/forget",
        }
        for name, path in lists.items():
            self.go(path)
            expect(self.page.get_by_role("heading", level=1)).to_be_visible()
            self.picture(name)
        self.page.emulate_media(color_scheme="dark")
        self.page.set_viewport_size(NARROW)
        for name, path in {
            "narrow": "/",
            "narrow-form": "/training/jobs/submit",
            "narrow-tests": "/ab-tests/old-or-new",
        }.items():
            self.go(path)
            self.picture(name, whole=False)
            wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is wider than a narrow screen by {wide} px"
        self.page.set_viewport_size(WIDE)
        self.page.emulate_media(color_scheme="light")


def barriers(page: Page) -> list[str]:
    """What axe-core finds in a page that keeps somebody from using it by keyboard, screen reader or weak eyes."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'], iframes: false})"
        ".then((found) => found.violations)"
    )
    return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@contextmanager
def person(base: str, pictures: Path | None = None, language: str = "ko-KR") -> Iterator[Journey]:
    """Somebody at a browser of their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=install(), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            context = browser.new_context(locale=language, viewport=WIDE)
            context.set_default_timeout(LATER)
            expect.set_options(timeout=LATER)
            yield Journey(context.new_page(), base, pictures)
        finally:
            browser.close()


def others_rate(environment: dict[str, str], endpoint: str, users: range) -> None:
    """What other users of an endpoint do: each asks a question and rates its answer."""
    at = f"{environment['LLM_OPS_API_BASE_URL']}/serve/{endpoint}"
    headers = {"X-User-Id": environment["LLM_OPS_USER_ID"], "X-User-Roles": environment["LLM_OPS_USER_ROLES"]}

    def one(number: int) -> None:
        question = f"하이패스 단말기는 어떻게 등록하나요? ({number})"
        body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "user": f"driver-{number}"}
        answer = requests.post(f"{at}/chat", json=body, headers=headers, timeout=300)
        answer.raise_for_status()
        told = {"request_id": answer.headers["x-request-id"], "rating": 3 + number % 3, "user": f"driver-{number}"}
        requests.post(f"{at}/feedback", json=told, headers=headers, timeout=300).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, users))


def whole_way(base: str, environment: dict[str, str], folder: Path, pictures: Path | None = None) -> None:
    """From a CSV to a concluded test, beside the model that the example has brought to its endpoint.

    Raises AssertionError for what a page does not show or complains of.
    """
    from tests.console.platform import write_rows

    asked = write_rows(folder / "toll-desk.csv", columns=("고객 문의", "상담 내용", "category"))
    endpoint = "customer-support"
    with person(base, pictures) as one:
        one.upload(asked, "toll-desk")
        one.read_the_report()
        trained = one.train("toll-desk@v1", "customer-support-base@1.0")
        one.approve()
        one.deploy_beside(trained, endpoint)
        one.chat_and_rate()
        one.start_a_test("customer-support-base-customer-support@1", trained, "old-or-new")
        one.see_the_sequence(lambda batch: others_rate(environment, endpoint, range(40 * batch, 40 * (batch + 1))))
        one.conclude(endpoint)
        one.look_around()
        assert one.faults == [], "\n".join(one.faults)


def main() -> None:
    """Start a platform of its own, have the example serve one model, and go the whole way with another on the pages."""
    import sys
    import tempfile

    from tests.console.platform import environment_of, example, running
    from tests.debian import font
    from tests.serving.conftest import make_model

    if len(sys.argv) != 2:
        sys.exit("python -m tests.console.journey FOLDER: the folder that the pictures go to")
    pictures = Path(sys.argv[1])
    font(":lang=ko", "fonts-noto-cjk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = environment_of(folder)
        with running(environment, folder):
            example(environment, folder, make_model(folder / "example", seed=3))
            base = environment["LLM_OPS_API_BASE_URL"].removesuffix("/llm-ops/v1")
            whole_way(base, environment, folder, pictures)


if __name__ == "__main__":
    main()
