"""A person at the console's pages, in headless Chromium, from an upload to a decided test.

`python -m tests.console.journey` goes the whole way against a platform of its own. With LLMOPS_CONSOLE_PICTURES, a
folder, it takes a picture of each step.
"""

import os
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.gateway.browser import install

PICTURES = os.environ.get("LLMOPS_CONSOLE_PICTURES")
"""Folder that pictures of each step are written to; without it none are taken."""
LATER = 300_000
"""Milliseconds that a busy machine has for what takes seconds."""


class Journey:
    """One person's way through the pages. `faults` are what a page complained of: scripts, its policy, answers."""

    def __init__(self, base: str, folder: Path, language: str = "ko-KR") -> None:
        self.base, self.folder, self.language = base, folder, language
        self.faults: list[str] = []
        self._shots = 0

    def __enter__(self) -> "Journey":
        self._playwright = sync_playwright().start()
        options: dict[str, Any] = {"executable_path": install(), "args": ["--no-sandbox", "--disable-dev-shm-usage"]}
        self._browser = self._playwright.chromium.launch(**options)
        self._context = self._browser.new_context(locale=self.language, viewport={"width": 1100, "height": 760})
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.page.on("dialog", lambda dialog: dialog.accept())
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        self._browser.close()
        self._playwright.stop()

    def go(self, path: str) -> None:
        self.page.goto(f"{self.base}{path}", wait_until="load")

    def picture(self, name: str, whole: bool = False) -> None:
        """Keep what is shown, where pictures are wanted."""
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"console-{name}.png", full_page=whole)

    def state(self, wanted: str) -> None:
        """Wait until the page says so by itself: nobody reloads it."""
        expect(self.page.locator("#state")).to_have_attribute("data-state", wanted, timeout=LATER)

    def said(self, text: str | re.Pattern[str]) -> Locator:
        found = self.page.get_by_text(text).first
        expect(found).to_be_visible(timeout=LATER)
        return found

    def upload(self, rows: Path, name: str) -> None:
        """A file whose columns nobody recognises: they are mapped, and the preview follows."""
        page = self.page
        self.go("/")
        self.picture("home-first")
        self.go("/catalog/datasets/create")
        page.get_by_label("이름").fill(name)
        page.get_by_label("데이터를 책임지는 팀").fill("toll")
        page.get_by_label("행의 종류").select_option("sft_pair")
        page.get_by_label("파일").set_input_files(rows)
        self.picture("upload")
        page.get_by_role("button", name="올리고 살펴보기").click()
        expect(page.locator("#outcome")).to_contain_text("0", timeout=LATER)
        expect(page.get_by_role("button", name="이 파일들을 등록")).to_be_disabled()
        page.get_by_label("question", exact=True).select_option("고객 문의")
        page.get_by_label("answer", exact=True).select_option("상담 내용")
        expect(page.get_by_role("button", name="이 파일들을 등록")).to_be_enabled(timeout=LATER)
        expect(page.locator("#outcome")).to_contain_text("120")
        self.picture("mapping", whole=True)
        page.get_by_role("button", name="이 파일들을 등록").click()

    def read_the_report(self, key: str) -> None:
        self.state("ready")
        report = self.page.frame_locator("iframe.report")
        expect(report.locator("svg").first).to_be_visible(timeout=LATER)
        self.page.locator("iframe.report").scroll_into_view_if_needed()
        self.picture("dataset")
        self.page.get_by_role("link", name="거절된 행").click()
        self.said("거절된 행이 없습니다")
        self.go(f"/catalog/datasets/{key}")

    def train(self, dataset: str, base: str) -> str:
        """Fill the form, see a fault beside its field and mend it, watch the curve; the model's name."""
        page = self.page
        page.get_by_role("link", name="이 데이터로 학습").click()
        page.get_by_label("출발 모델").select_option(base)
        expect(page.get_by_label("데이터셋")).to_have_value(dataset)
        page.get_by_label("학습률", exact=True).fill("5")
        expect(page.locator("#lr-fault")).not_to_be_empty(timeout=LATER)
        self.picture("training-fault")
        for label, value in {
            "학습률": "2e-3",
            "배치 크기": "16",
            "에폭": "40",
            "최대 단계": "40",
            "행의 최대 토큰": "128",
        }.items():
            page.get_by_label(label, exact=True).fill(value)
        expect(page.locator("#verdict .banner.good")).to_be_visible(timeout=LATER)
        expect(page.locator("#lr-fault")).to_be_empty()
        self.picture("training-form", whole=True)
        page.get_by_role("button", name="이 학습을 요청").click()
        expect(page.locator("#curve canvas")).to_be_visible(timeout=LATER)
        expect(page.locator("#log")).not_to_be_empty(timeout=LATER)
        self.picture("training-live", whole=True)
        self.state("registered")
        expect(page.locator("#curve canvas")).to_be_visible()
        self.said("GPU를 쓰기 전에 세운 계획")
        self.picture("training-done", whole=True)
        page.get_by_role("link", name="모델 보기").click()
        return page.get_by_role("heading", level=1).inner_text()

    def approve(self, model: str) -> None:
        page = self.page
        # Its gate was met, so it is in staging already: a person looks at the evidence, and decides on production.
        promote = page.get_by_role("button", name="프로덕션으로 승격")
        expect(promote).to_be_enabled(timeout=LATER)
        self.picture("model", whole=True)
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
        expect(page.locator("#verdict .banner.good")).to_be_visible(timeout=LATER)
        self.picture("deploy", whole=True)
        page.get_by_role("button", name="배포", exact=True).click()
        self.state("healthy")
        expect(page.locator("#endpoint progress")).to_have_count(2)
        self.picture("endpoint", whole=True)

    def chat_and_rate(self, endpoint: str, conversations: int) -> None:
        """One conversation as a person has it; the test that follows needs more of them."""
        self.page.get_by_role("link", name="대화", exact=True).click()
        self._converse("환불은 어떻게 하나요?", 4)
        self.picture("chat")
        self.conversations = conversations

    def _converse(self, question: str, rating: int) -> None:
        page = self.page
        page.get_by_label("메시지").fill(question)
        page.get_by_label("메시지").press("Enter")
        stars = page.locator("fieldset.rate").last
        expect(stars).to_be_visible(timeout=LATER)
        stars.get_by_role("button", name=f"{rating} / 5").click()
        expect(stars.get_by_role("status")).to_be_visible(timeout=LATER)

    def test_against(self, control: str, treatment: str, endpoint: str) -> None:
        """Compare both models by what users say, look at the sequence, and conclude."""
        page = self.page
        self.go(f"/ab-tests/create?endpoint={endpoint}")
        expect(page.get_by_label("지금의 모델 (a)")).to_have_value(control)
        expect(page.get_by_label("바꿀 후보 모델 (b)")).to_have_value(treatment)
        page.get_by_label("이름").fill("old-or-new")
        page.get_by_label("하루에 평가하는 사용자 수").fill("100")
        expect(page.locator("#verdict dl")).to_be_visible(timeout=LATER)
        page.get_by_label("결정을 스스로 시행").uncheck()
        self.picture("ab-form", whole=True)
        page.get_by_role("button", name="시험 시작").click()
        self.state("running")
        self.go(f"/serving/chat/{endpoint}")
        for number in range(self.conversations):
            page.get_by_role("button", name="새 대화").click()
            self._converse(f"하이패스 단말기는 어떻게 등록하나요? ({number})", 3 + number % 3)
        self.go("/ab-tests/old-or-new")
        expect(page.locator("#sequence canvas")).to_be_visible(timeout=LATER)
        self.picture("ab-live", whole=True)
        page.get_by_role("button", name="모든 사용자를 b로").click()
        self.state("concluded")
        expect(page.locator("#decision")).to_have_attribute("data-decision", "promote")
        self.picture("ab-concluded", whole=True)
        self.go(f"/serving/endpoints/{endpoint}")
        self.state("healthy")
        expect(page.locator("#endpoint progress")).to_have_count(1, timeout=LATER)

    def look_around(self) -> None:
        """Every other page, dark and narrow too."""
        for name, path in {
            "home": "/",
            "datasets": "/catalog/datasets",
            "trainings": "/training/jobs",
            "experiments": "/training/experiments",
            "models": "/catalog/models",
            "reviews": "/reviews",
            "usage": "/usage?by=endpoint,day",
            "audit": "/audit",
        }.items():
            self.go(path)
            expect(self.page.get_by_role("heading", level=1)).to_be_visible()
            self.picture(name)
        self.page.emulate_media(color_scheme="dark")
        self.page.set_viewport_size({"width": 390, "height": 800})
        for name, path in {"narrow": "/", "narrow-form": "/training/jobs/submit"}.items():
            self.go(path)
            self.picture(name)
            wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{path} is wider than a narrow screen by {wide} px"
        self.page.set_viewport_size({"width": 1100, "height": 760})
        self.page.emulate_media(color_scheme="light")


def main() -> None:
    """Start a platform of its own, have the example serve one model, and go the whole way with another on the pages."""
    import subprocess
    import sys
    import tempfile

    from tests.console.platform import environment_of, running, write_rows
    from tests.serving.conftest import make_model

    few = '{"learning_rate": 2e-3, "batch_size": 16, "num_epochs": 40, "max_steps": 40, "max_seq_length": 128}'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment, rows = environment_of(folder), write_rows(folder / "support.csv")
        model = make_model(folder / "example", seed=3)
        command = [sys.executable, "examples/complete_workflow.py", "--data", str(rows), "--model", str(model)]
        with running(environment, folder):
            subprocess.run([*command, "--hyperparameters", few, "--hours", "0.3"], env=environment, check=True)
            asked = write_rows(folder / "toll-desk.csv", columns=("고객 문의", "상담 내용", "category"))
            with Journey(environment["LLM_OPS_API_BASE_URL"].removesuffix("/llm-ops/v1"), folder) as journey:
                journey.upload(asked, "toll-desk")
                journey.read_the_report("toll-desk@v1")
                trained = journey.train("toll-desk@v1", "customer-support-base@1.0")
                journey.approve(trained)
                journey.deploy_beside(trained, "customer-support")
                journey.chat_and_rate("customer-support", conversations=14)
                journey.test_against("customer-support-base-customer-support@1", trained, "customer-support")
                journey.look_around()
                assert journey.faults == [], journey.faults


if __name__ == "__main__":
    main()
