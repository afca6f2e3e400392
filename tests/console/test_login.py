"""Users log in at the console by a password or at a provider, and are who they were until they leave or are let go."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import time_machine
from starlette.testclient import TestClient

from images.console.__main__ import callers_of, provider_of, state_of
from images.console.app import create_app
from images.console.callers import networks
from images.console.login.page import target_of
from images.console.login.tries import Tries
from images.console.login.words import WORDS, language_of
from images.console.state import State
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.users import create_user, disable_user, set_password, set_roles
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import tables as t
from resources.catalog.database import now
from tests.console.conftest import HOST
from tests.console.provider import CLIENT, SECRET, provider
from tests.console.test_documents import V1

PASSWORD = "비밀번호 열두 자 이상으로"
SITE = {"Origin": HOST}
COOKIE = "llmops-session"


def browser_of(state: State, host: str = HOST, peer: str = "127.0.0.1") -> TestClient:
    return TestClient(create_app(state), base_url=host, client=(peer, 50000), follow_redirects=False)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the user kim, which each test gets a copy of: migrating and hashing take most of the time."""
    home = tmp_path_factory.mktemp("fresh") / "home"
    settings = Settings(home=home, _env_file=None)
    prepare_home(settings)
    wiring = Wiring(settings)
    create_user(wiring, "root", "kim", ["data-scientist"], PASSWORD)
    wiring.catalog.database.engine.dispose()
    return home


@pytest.fixture
def wiring(fresh: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Wiring:
    """A home with the user kim where a browser is asked for, and without one else."""
    wiring = Wiring(Settings(home=shutil.copytree(fresh, tmp_path / "home"), _env_file=None))
    if "browser" not in request.fixturenames:
        with wiring.catalog.database.engine.begin() as connection:
            connection.execute(sa.delete(t.users))
    return wiring


@pytest.fixture
def browser(wiring) -> TestClient:
    return browser_of(State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None))


def log_in(browser: TestClient, name: str = "kim", password: str = PASSWORD, **more: str):
    return browser.post("/login", data={"name": name, "password": password, **more}, headers=SITE)


def who(browser: TestClient) -> dict:
    return browser.get(f"{V1}/session").json()


def test_nobody_is_let_in_without_a_login_once_there_is_a_user(wiring):
    browser = browser_of(State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None))
    assert who(browser)["user"] == "console"
    create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    assert browser.get(f"{V1}/session").status_code == 401


def test_a_user_logs_in_works_and_logs_out(browser, wiring):
    answer = log_in(browser, next="/datasets?page=2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/datasets?page=2")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "secure" not in cookie and "path=/" in cookie
    found = who(browser)
    assert (found["user"], found["roles"]) == ("kim", ["data-scientist"])
    assert "training.request" in found["actions"] and "model.promote" not in found["actions"]
    secret = browser.cookies[COOKIE]
    with wiring.catalog.database.read() as connection:
        assert secret not in str(connection.execute(sa.select(t.sessions)).all())
    assert browser.post("/logout", headers=SITE).headers["location"] == "/login?ended=1"
    browser.cookies.clear()
    browser.cookies.set(COOKIE, secret)
    assert browser.get(f"{V1}/session").status_code == 401
    actions = [line["action"] for line in wiring.catalog.audit_log()]
    assert actions == ["user.logout", "user.login", "user.create"]


def test_a_page_leads_to_the_login_and_back_and_has_a_way_out(browser):
    asked = browser.get("/catalog/datasets?x=1", headers={"Accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fcatalog%2Fdatasets%3Fx%3D1")
    assert 'value="/catalog/datasets?x=1"' in browser.get(asked.headers["location"]).text
    log_in(browser)
    page = browser.get("/catalog/datasets")
    assert page.status_code == 200 and "kim" in page.text and 'action="/logout"' in page.text


def test_each_login_has_a_session_of_its_own_and_the_one_before_ends(browser):
    log_in(browser)
    first = browser.cookies[COOKIE]
    log_in(browser)
    assert browser.cookies[COOKIE] != first and who(browser)["user"] == "kim"
    browser.cookies.clear()
    browser.cookies.set(COOKIE, first)
    assert browser.get(f"{V1}/session").status_code == 401


def test_a_session_that_somebody_made_up_is_not_taken_over_by_the_login(browser):
    browser.cookies.set(COOKIE, "chosen-by-somebody-else")
    answer = log_in(browser)
    assert "chosen-by-somebody-else" not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("kim", "wrong password 1"),
        ("no", PASSWORD),
        ("", PASSWORD),
        ("kim", ""),
        ("kim", "a" * 2000),
        ("KIM", PASSWORD),
    ],
)
def test_a_wrong_login_says_not_what_was_wrong(browser, caplog, name, password):
    answer = log_in(browser, name, password, lang="en")
    assert answer.status_code == 401 and WORDS["en"]["wrong"] in answer.text
    assert "set-cookie" not in answer.headers and (not password or password not in answer.text + caplog.text)


def test_hangul_is_the_same_password_however_a_keyboard_composes_it(browser):
    import unicodedata

    assert log_in(browser, password=unicodedata.normalize("NFD", PASSWORD)).status_code == 303


def test_after_many_wrong_passwords_the_right_one_has_to_wait_too(browser, wiring):
    for _ in range(5):
        assert log_in(browser, password="wrong password 1").status_code == 401
    assert log_in(browser).status_code == 429
    with time_machine.travel(now() + timedelta(seconds=2), tick=False):
        assert log_in(browser).status_code == 303
    assert wiring.catalog.users.get("kim").failures == 0


def test_one_address_may_not_try_without_end(wiring):
    create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    state = State(wiring, callers_of(wiring, networks("127.0.0.1")), None, tries=Tries(most=3))
    browser = browser_of(state)
    for number in range(4):
        # What a client says of its own address does not help it: it is read from the right.
        headers = {**SITE, "X-Forwarded-For": f"10.0.0.{number}, 203.0.113.9"}
        answer = browser.post("/login", data={"name": "x", "password": "y"}, headers=headers)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "60"


@pytest.mark.parametrize("passed", [timedelta(hours=12, seconds=1), timedelta(minutes=121)])
def test_a_session_ends_by_itself(browser, passed):
    log_in(browser)
    with time_machine.travel(now() + passed, tick=False):
        assert browser.get(f"{V1}/session").status_code == 401


def test_a_session_that_is_used_lasts_no_longer_than_its_hours(browser):
    log_in(browser)
    start = now()
    for hour in range(1, 12):
        with time_machine.travel(start + timedelta(hours=hour), tick=False):
            assert browser.get(f"{V1}/session").status_code == 200
    with time_machine.travel(start + timedelta(hours=12, minutes=1), tick=False):
        assert browser.get(f"{V1}/session").status_code == 401


def test_a_user_who_is_let_go_is_out_at_once_with_sessions_and_keys(browser, wiring):
    log_in(browser)
    _, key = wiring.catalog.api_keys.create("kim", owner="kim", role="viewer")
    assert disable_user(wiring, "root", "kim") and not disable_user(wiring, "root", "kim")
    assert browser.get(f"{V1}/session").status_code == 401
    assert browser.get(f"{V1}/session", headers={"Authorization": f"Bearer {key}"}).status_code == 401
    assert log_in(browser).status_code == 401


def test_roles_count_from_the_next_request_on_and_a_new_password_ends_sessions(browser, wiring):
    log_in(browser)
    set_roles(wiring, "root", "kim", ["approver"])
    assert who(browser)["roles"] == ["approver"]
    set_password(wiring, "root", "kim", "another password 123")
    assert browser.get(f"{V1}/session").status_code == 401
    assert log_in(browser, password="another password 123").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_no_other_page_changes_anything_by_somebodys_session(browser, wiring, headers):
    log_in(browser)
    body = {"name": "desk", "version": "v1.0", "type": "sft_pair"}
    assert browser.post(f"{V1}/catalog/datasets", json=body, headers=headers).status_code == 403
    assert browser.post("/logout", headers=headers).status_code == 403
    assert browser.post("/login", data={"name": "kim", "password": PASSWORD}, headers=headers).status_code == 403
    assert wiring.catalog.drafts.datasets() == []
    assert browser.post(f"{V1}/catalog/datasets", json=body, headers=SITE).status_code == 201


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:x",
        "/a\nb",
        "a",
        "",
        None,
    ],
)
def test_a_login_leads_to_pages_of_the_console_alone(text):
    assert target_of(text) == "/"
    assert target_of("/datasets?x=1") == "/datasets?x=1"


def test_the_page_is_korean_or_english_and_carries_no_script(browser):
    page = browser.get(
        "/login", params={"next": '/x"><script>alert(1)</script>'}, headers={"Accept-Language": "ko-KR,en;q=0.5"}
    )
    assert '<html lang="ko">' in page.text and "비밀번호" in page.text and "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    # By any stricter one a browser's own form would come with `Origin: null`, and be refused.
    assert page.headers["referrer-policy"] == "same-origin"
    english = browser.get("/login?lang=en", headers={"Accept-Language": "ko"}).text
    assert "Password" in english
    assert WORDS["ko"].keys() == WORDS["en"].keys()
    assert [language_of(None, text) for text in ("", "fr, en;q=0.5, ko;q=0.9", "ko;q=x", "*", "en-US,ko")] == [
        "en", "ko", "en", "en", "en",
    ]  # fmt: skip


def test_behind_tls_the_cookie_is_for_tls_alone(wiring):
    create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    public = "https://llm.example"
    settings = wiring.settings.model_copy(update={"public_url": public})
    state = state_of(settings, "127.0.0.1")
    assert state.callers.open_to is None
    browser = browser_of(state, public)
    answer = browser.post("/login", data={"name": "kim", "password": PASSWORD}, headers={"Origin": public})
    assert re.match(
        r"__Host-llmops-session=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", answer.headers["set-cookie"]
    )
    assert who(browser)["user"] == "kim"


def test_what_a_proxy_of_this_machine_sends_on_is_not_of_the_machines_owner(wiring):
    browser = browser_of(State(wiring, callers_of(wiring, (), "console"), None))
    assert who(browser)["user"] == "console"
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"):
        assert browser.get(f"{V1}/session", headers={name: "203.0.113.9"}).status_code == 401
    settings = wiring.settings.model_copy(update={"trusted_proxies": "127.0.0.1"})
    assert state_of(settings, "127.0.0.1").callers.open_to is None


def test_beyond_loopback_it_starts_with_users_or_a_provider_and_an_address_with_tls(wiring):
    settings = wiring.settings
    with pytest.raises(SystemExit, match="llmops user create"):
        state_of(settings, "0.0.0.0")
    create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    with pytest.raises(SystemExit, match="LLMOPS_PUBLIC_URL"):
        state_of(settings, "0.0.0.0")
    public = {"public_url": "https://llm.example"}
    assert state_of(settings.model_copy(update=public), "0.0.0.0").callers.open_to is None
    for more, words in (
        ({"oidc_issuer": "https://login.example"}, "LLMOPS_OIDC_CLIENT_ID"),
        ({"oidc_issuer": "http://login.example", "oidc_client_id": "x", **public}, "https://"),
    ):
        with pytest.raises(SystemExit, match=words):
            provider_of(settings.model_copy(update=more))


# At a provider


@pytest.fixture(scope="module")
def idp():
    with provider(f"{HOST}/login/callback") as found:
        yield found


@pytest.fixture
def at_provider(idp, wiring):
    idp.user = {"sub": "u-1", "preferred_username": "kim", "roles": ["data-scientist"]}
    idp.spoil, idp.signing_key = {}, None
    wished = {"oidc_issuer": idp.url, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "public_url": HOST}
    settings = Settings(home=wiring.settings.home, _env_file=None, **wished)
    return browser_of(state_of(settings, "127.0.0.1"))


def go(browser: TestClient, target: str = "/models") -> httpx.Response:
    """To the provider and back, as a browser goes."""
    sent = browser.get("/login/provider", params={"next": target})
    assert sent.status_code == 303, sent.text
    back = httpx.get(sent.headers["location"], follow_redirects=False)
    assert back.status_code == 302, back.text
    return browser.get(back.headers["location"])


def test_a_user_logs_in_at_a_provider(at_provider, idp, wiring):
    done = go(at_provider)
    assert (done.status_code, done.headers["location"]) == (303, "/models")
    assert who(at_provider)["user"] == "kim" and who(at_provider)["roles"] == ["data-scientist"]
    asked = idp.seen[-1]
    assert asked["code_challenge_method"] == "S256" and len(asked["state"]) > 40 and len(asked["nonce"]) > 40
    user = wiring.catalog.users.get("kim")
    assert (user.issuer, user.subject, user.password_hash) == (idp.url, "u-1", None)
    login = next(line for line in wiring.catalog.audit_log() if line["action"] == "user.login")
    assert login["actor"] == "kim" and login["detail"]["how"] == idp.url
    # No password opens it, and an administrator can end it.
    assert log_in(at_provider, password="").status_code == 401
    disable_user(wiring, "root", "kim")
    assert at_provider.get(f"{V1}/session").status_code == 401
    assert go(at_provider).status_code == 401


def test_roles_come_from_the_provider_at_each_login_and_from_here_at_once(at_provider, idp, wiring):
    idp.user["roles"] = []
    refused = go(at_provider)
    assert refused.status_code == 401 and "no role here" in refused.text
    set_roles(wiring, "root", "kim", ["approver"])
    assert go(at_provider).status_code == 303 and who(at_provider)["roles"] == ["approver"]
    idp.user["roles"] = ["viewer", "root"]
    go(at_provider)
    assert who(at_provider)["roles"] == ["approver", "viewer"]


def test_the_name_of_somebody_else_is_not_taken(at_provider, idp, wiring):
    create_user(wiring, "root", "park", ["admin"], PASSWORD)
    idp.user |= {"sub": "u-2", "preferred_username": "park"}
    assert "somebody else" in go(at_provider).text
    go(at_provider)
    idp.user |= {"sub": "u-3", "preferred_username": "lee"}
    assert go(at_provider).status_code == 303
    # Who is renamed at the provider stays who it was here.
    idp.user |= {"sub": "u-3", "preferred_username": "kim"}
    assert go(at_provider).status_code == 303 and who(at_provider)["user"] == "lee"
    for odd in ("", "a b", "../x", "k\u200bim", None, 5):
        idp.user |= {"sub": "u-4", "preferred_username": odd}
        assert go(at_provider).status_code == 401


@pytest.mark.parametrize(
    "spoil",
    [
        {"iss": "https://evil.example"},
        {"aud": ["another"]},
        {"aud": [CLIENT, "another"]},
        {"azp": "another"},
        {"nonce": "another"},
        {"exp": 1},
        {"iat": 9999999999},
        {"sub": ""},
        {"at_hash": "another"},
    ],
)
def test_an_identity_that_is_not_for_this_login_proves_nothing(at_provider, idp, spoil):
    idp.spoil = spoil
    refused = go(at_provider)
    assert refused.status_code == 401 and COOKIE not in at_provider.cookies, (spoil, refused.text)


def test_an_identity_signed_by_another_key_proves_nothing_and_a_new_key_is_found(at_provider, idp):
    from joserfc.jwk import RSAKey

    assert go(at_provider).status_code == 303
    other = RSAKey.generate_key(2048, auto_kid=True)
    idp.signing_key = other
    assert go(at_provider).status_code == 401
    idp.key = other
    provider = at_provider.app.app.state.console.provider
    provider._keys = (provider._keys[0] - 11, provider._keys[1])
    assert go(at_provider).status_code == 303


def test_an_answer_is_taken_once_and_in_the_browser_that_asked(at_provider, idp, wiring):
    sent = at_provider.get("/login/provider")
    back = httpx.get(sent.headers["location"], follow_redirects=False).headers["location"]
    other = TestClient(at_provider.app, base_url=HOST, client=("127.0.0.1", 5), follow_redirects=False)
    assert other.get(back).status_code == 401
    assert at_provider.get(back.replace("state=", "state=x")).status_code == 401
    assert at_provider.get(f"{back}&iss=https://evil.example").status_code == 401
    # It was used up by that.
    assert at_provider.get(back).status_code == 401
    sent = at_provider.get("/login/provider")
    back = httpx.get(sent.headers["location"], follow_redirects=False).headers["location"]
    with time_machine.travel(now() + timedelta(minutes=11), tick=False):
        assert at_provider.get(back).status_code == 401
    denied = at_provider.get("/login/callback?error=access_denied&error_description=<script>x</script>")
    assert denied.status_code == 401 and "<script>" not in denied.text


def test_a_provider_that_is_away_or_another_is_said(wiring):
    wished = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": CLIENT, "public_url": HOST}
    settings = Settings(home=wiring.settings.home, _env_file=None, **wished)
    answer = browser_of(state_of(settings, "127.0.0.1")).get("/login/provider?next=/x")
    assert answer.status_code == 503 and "does not answer" in answer.text
